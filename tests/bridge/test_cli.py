"""The framework-free program."""

import json

from PIL import Image

from bridge.cli import main
from bridge.teachers.card import Card


def test_views_are_written_without_any_framework(tmp_path, capsys):
    line = ["views", "--image", "sklearn:flower.jpg", "--out", str(tmp_path), "--grid", "3", "--recipe", "imagenet"]
    assert main([*line, "--image-size", "48", "--count", "4", "--layout", "tar", "--kind", "augmented"]) == 0
    said = capsys.readouterr().out
    for name in ("base", "augmented", "mixed"):
        assert f"{name}.png: 9 views" in said
    assert Image.open(tmp_path / "base.png").width > Image.open(tmp_path / "augmented.png").width  # 55 and 48 pixels
    assert (tmp_path / "files" / "views-000000.tar").exists()


def test_card_is_shown_and_a_tampered_folder_refused(tmp_path, capsys):
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    Card(classes=3, input_size=(8, 8), forms={"safetensors": "weights.safetensors"}).sealed(tmp_path).save(tmp_path)
    assert main(["card", "--model", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 3
    (tmp_path / "weights.safetensors").write_bytes(b"other weights")
    assert main(["card", "--model", str(tmp_path)]) == 2
    assert "weights.safetensors" in capsys.readouterr().err


def test_missing_options_are_asked_for(capsys):
    assert main(["views"]) == 2 and main(["card"]) == 2
    assert "--image" in capsys.readouterr().err
