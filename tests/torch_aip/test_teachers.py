"""Teachers: frozen, hidden, in inference mode, in log space; and their folders, which never give a wrong network."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from bridge.errors import MissingTeacherError, TeacherError
from bridge.teachers import Card
from tests.torch_aip.helpers import Foreign, a_network, pixels, randomised
from torch_aip import Teacher, load_model, load_teacher, models, save_teacher
from torch_aip.export import to_onnx


class Student(nn.Module):
    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.dense = nn.Linear(192, 3)


def onnx_folder(folder, model, outputs: str = "logits") -> Card:
    """A folder that holds nothing but model.onnx."""
    folder.mkdir()
    to_onnx(model, folder / "model.onnx", input_size=(8, 8))
    card = Card(classes=3, input_size=(8, 8), outputs=outputs, forms={"onnx": "model.onnx"}).sealed(folder)
    card.save(folder)
    return card


def test_no_gradient_reaches_the_teacher() -> None:
    model, images = a_network(), pixels().requires_grad_()
    assert model(images).requires_grad
    teacher = Teacher(model)
    answer = teacher(images)
    assert not answer.requires_grad and not any(weight.requires_grad for weight in model.parameters())
    assert not answer.is_inference()  # so that losses may keep it for their own gradients


def test_a_module_that_holds_a_teacher_does_not_hold_its_weights() -> None:
    student = Student(Teacher(a_network(), mean=(0.1,) * 3, std=(1,) * 3))
    assert sorted(student.state_dict()) == ["dense.bias", "dense.weight"]
    assert len(list(student.parameters())) == 2 and not list(student.teacher.buffers())


def test_the_teacher_stays_in_inference_mode_whatever_happens_around_it() -> None:
    model = Foreign()
    teacher = Teacher(model)
    student, images = Student(teacher), pixels()
    expected, before = model(images).detach(), models.state_dict(model)
    student.train()
    assert not model.training and not teacher.training
    torch.testing.assert_close(teacher(images), expected)
    model.train()
    torch.testing.assert_close(teacher(images), expected)
    torch.testing.assert_close(torch.compile(teacher, backend="eager")(images), expected)
    assert all((before[key] == array).all() for key, array in models.state_dict(model).items())


def test_converting_the_holder_moves_the_teacher_but_does_not_round_it() -> None:
    teacher = Teacher(a_network(), mean=(0.1,) * 3, std=(0.3,) * 3)
    expected = teacher(pixels())
    student = Student(teacher).bfloat16()
    assert student.dense.weight.dtype == torch.bfloat16
    assert torch.equal(teacher(pixels()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(pixels()), expected)
    assert student.to("meta").teacher.device.type == "meta"


def test_probabilities_and_labels_become_log_space() -> None:
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]])
    answer = Teacher(lambda x: p, outputs="probabilities", classes=3)(pixels(2))
    torch.testing.assert_close(answer, torch.log(p.clamp(min=1e-7)))
    least = math.log(1e-7)
    for labels in (torch.tensor([2, 0]), torch.tensor([[2], [0]]), torch.tensor([[0, 0, 1], [1, 0, 0]])):
        answer = Teacher(lambda x, labels=labels: labels, outputs="labels", classes=3)(pixels(2))
        torch.testing.assert_close(answer, torch.tensor([[least, least, 0], [0, least, least]]))


def test_normalisation_is_done_in_float32_before_the_model() -> None:
    seen = []
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    Teacher(lambda x: seen.append(x) or x[:, :, 0, 0], mean=mean, std=std)(pixels().double())
    expected = (pixels() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen[0], expected)


def test_bfloat16_is_near_and_its_answers_are_float32() -> None:
    model = a_network()
    exact, fast = Teacher(model), Teacher(model, dtype="bfloat16")
    answer = fast(pixels())
    assert answer.dtype == torch.float32 and not torch.equal(answer, exact(pixels()))
    torch.testing.assert_close(answer, exact(pixels()), rtol=0.05, atol=0.05 * float(answer.abs().max()))
    assert fast.digest == exact.digest


def test_the_digest_tells_networks_apart() -> None:
    digests = {
        Teacher(a_network(seed=seed), outputs).digest for seed in (1, 2) for outputs in ("logits", "probabilities")
    }
    digests.add(Teacher(a_network(seed=1, mean=(0, 0, 0))).digest)
    digests.add(Teacher(a_network(seed=1), mean=(0, 0, 0), std=(1, 1, 1)).digest)
    assert len(digests) == 6
    assert Teacher(a_network(seed=1)).digest in digests
    assert Teacher(torch.compile(a_network(seed=1), backend="eager")).digest in digests
    assert Teacher(lambda x: x[:, :, 0, 0]).digest is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"outputs": "logit"}, "logits, probabilities, labels"),
        ({"mean": (0, 0, 0)}, "mean and std together"),
        ({"mean": (0, 0, 0), "std": (1, 0, 1)}, "std above 0"),
        ({"dtype": "float16"}, "float16"),
        ({"classes": 4}, "classes: 4, the model: 3"),
        ({"class_names": ["a"]}, "class_names: 1"),
    ],
)
def test_contradictions_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(TeacherError, match=said):
        Teacher(a_network(), **arguments)


def test_answers_that_are_no_class_scores_are_refused() -> None:
    for answer, said in (
        ((torch.zeros(4, 3), torch.zeros(4, 3)), "2 outputs"),
        (torch.zeros(4, 3, 1), r"shape \(4, 3, 1\)"),
        (torch.zeros(4, 5), "5 classes; 3 were announced"),
    ):
        with pytest.raises(TeacherError, match=said):
            Teacher(lambda x, answer=answer: answer, classes=3)(pixels())
    assert Teacher(lambda x: {"logits": x[:, :, 0, 0]}, classes=3)(pixels()).shape == (4, 3)
    with pytest.raises(TeacherError, match="classes="):
        Teacher(lambda x: x[:, 0, 0, 0], outputs="labels")
    with pytest.raises(TeacherError, match="str"):
        Teacher("resnet20")  # type: ignore[arg-type]


def test_images_of_another_size_or_layout_are_refused() -> None:
    teacher = Teacher(a_network())
    for images in (pixels(2, 16), pixels(2).permute(0, 2, 3, 1)):
        with pytest.raises(TeacherError, match=r"\[batch, 3, 8, 8\]"):
            teacher(images)


def test_a_network_comes_back_from_its_folder(tmp_path) -> None:
    model = a_network()
    facts = {"class_names": ["a", "b", "c"], "accuracy": {"top1": 0.5, "dataset": "none", "n": 2}, "licence": "none"}
    card = save_teacher(torch.compile(model, backend="eager"), tmp_path / "teacher", source="a test", **facts)
    assert sorted(path.name for path in (tmp_path / "teacher").iterdir()) == ["card.json", "weights.safetensors"]
    assert card == Card.load(tmp_path / "teacher")
    loaded, loaded_card = load_model(tmp_path / "teacher")
    assert loaded_card == card and all(weight.requires_grad for weight in loaded.parameters())
    assert torch.equal(loaded.eval()(pixels()), model(pixels()))
    teacher = load_teacher(tmp_path / "teacher")
    assert teacher.digest == card.digest and teacher.class_names == ("a", "b", "c") and teacher.input_size == (8, 8)
    assert load_teacher(tmp_path / "teacher", dtype="bfloat16").dtype == "bfloat16"


def test_a_module_of_ones_own_is_kept_as_onnx_beside_its_weights(tmp_path) -> None:
    model, folder = randomised(Foreign()).train(), tmp_path / "teacher"
    card = save_teacher(model, folder, class_names=["a", "b", "c"], source="a test", input_size=(8, 8))
    assert model.training and (card.architecture, card.classes, card.input_size) == (None, 3, (8, 8))
    assert Card.load(folder) == card and set(card.forms) == {"safetensors", "onnx"} and card.layout == "NCHW"
    model.eval()
    teacher = load_teacher(folder)
    torch.testing.assert_close(teacher(pixels()), model(pixels()), rtol=1e-5, atol=1e-5)
    assert teacher.class_names == ("a", "b", "c")
    again = Foreign().eval()
    models.load_weights(again, folder / "weights.safetensors")
    assert torch.equal(again(pixels()), model(pixels()))
    with pytest.raises(TeacherError, match="frozen teacher"):
        load_model(folder)


def test_a_module_onnx_cannot_say_keeps_its_weights(tmp_path) -> None:
    class Strange(Foreign):
        def forward(self, x):
            return torch.linalg.matrix_exp(super().forward(x)[:, :, None] * torch.eye(3))[:, 0]

    model = Strange()
    with pytest.warns(UserWarning, match=r"matrix_exp.*weights alone.*load_weights"):
        card = save_teacher(model, tmp_path / "teacher", input_size=(8, 8))
    assert list(card.forms) == ["safetensors"] and Card.load(tmp_path / "teacher") == card
    again = Strange()
    models.load_weights(again, tmp_path / "teacher" / "weights.safetensors")
    assert torch.equal(again.fc.weight, model.fc.weight)
    with pytest.raises(TeacherError, match="no form this backend loads"):
        load_teacher(tmp_path / "teacher")


def test_a_module_of_ones_own_must_run_on_images_of_a_known_size(tmp_path) -> None:
    for module, size, said in (
        (Foreign(), None, r"Foreign does not say.*input_size="),
        (Foreign(), (2, 2), r"does not run on images of shape \[3, 2, 2\]"),
        (nn.Conv2d(3, 4, 3), (8, 8), r"answers with \[1, 4, 6, 6\]"),
    ):
        with pytest.raises(TeacherError, match=said):
            save_teacher(module, tmp_path / "teacher", input_size=size)
    assert not (tmp_path / "teacher").exists()


def test_convolutions_are_stored_channels_last_and_answer_the_same() -> None:
    model = models.build("resnet18x0.25", classes=5, image_size=32).eval()
    expected = model(pixels(4, 32)).detach()
    weights = models.state_dict(model)
    teacher = Teacher(model)
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(teacher(pixels(4, 32)), expected, rtol=1e-5, atol=1e-5)
    assert all((weights[name] == array).all() for name, array in models.state_dict(model).items())

    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 2, 1)

        def forward(self, x):
            return self.conv(x).mean((2, 3, 4))

    clips = torch.rand(2, 3, 4, 8, 8)
    torch.testing.assert_close(Teacher(Video())(clips).shape, torch.Size([2, 2]))


def test_a_name_is_looked_up_among_the_teachers_and_never_invented(tmp_path, monkeypatch) -> None:
    save_teacher(a_network(), tmp_path / "shelf" / "digits_mine")
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path / "shelf"))
    assert load_teacher("mine", dataset="digits").classes == 3
    with pytest.raises(MissingTeacherError, match="train-teacher"):
        load_teacher("resnet20")
    save_teacher(a_network(classes=2), tmp_path / "shelf" / "torchvision" / "resnet18")
    assert load_teacher("torchvision/resnet18").classes == 2


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A cache with torchvision's "published" ResNet-18, whose weights are random here."""
    from torch_aip.models import library

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("AIP_TEACHERS", str(tmp_path / "shelf"))
    twin = models.build("resnet18", classes=1000).eval()
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    weights = library._torchvision_facts("resnet18")[0]
    monkeypatch.setattr(type(weights), "url", "http://127.0.0.1:9/resnet18.pth")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    torch.save(twin.state_dict(), place / "resnet18.pth")
    return twin, place / "resnet18.pth"


def test_a_bare_name_means_published_weights_for_imagenet_alone(published, tmp_path) -> None:
    twin, file = published
    teacher = load_teacher("resnet18", dataset="in1k")
    torch.testing.assert_close(teacher(pixels(1, 224)), twin(pixels(1, 224)), rtol=1e-4, atol=1e-4)
    assert teacher.classes == 1000 and load_model("resnet18", dataset="in1k")[1].class_names[0] == "tench"
    for dataset in ("cifar10", "in100", None, str(tmp_path / "in1k")):
        with pytest.raises(MissingTeacherError, match=r"torch_aip train-teacher .*--architecture resnet18"):
            load_teacher("resnet18", dataset=dataset)
    for name in ("resnet20", "nonsense"):  # of which torchvision has none
        with pytest.raises(MissingTeacherError, match=f"There is no teacher '{name}'"):
            load_teacher(name, dataset="in1k")
    file.unlink()
    with pytest.raises(TeacherError, match=r"no teacher 'resnet18'.*torchvision/resnet18.*cannot be fetched"):
        load_teacher("resnet18", dataset="in1k")
    save_teacher(a_network(classes=2), tmp_path / "shelf" / "in1k_resnet18")
    assert load_teacher("resnet18", dataset="in1k").classes == 2


def test_a_folder_of_onnx_alone_answers_as_the_module_did(tmp_path) -> None:
    model = randomised(Foreign())
    card = onnx_folder(tmp_path / "teacher", model)
    teacher = load_teacher(tmp_path / "teacher")
    for batch in (1, 5):
        torch.testing.assert_close(teacher(pixels(batch)), model(pixels(batch)), rtol=1e-5, atol=1e-5)
    assert teacher.digest == card.digest and teacher.input_size == (8, 8) and teacher.classes == 3
    assert teacher.state_dict() == {} and teacher(pixels().requires_grad_()).requires_grad is False
    fast = load_teacher(tmp_path / "teacher", dtype="bfloat16")(pixels())
    torch.testing.assert_close(fast, model(pixels()), rtol=0.05, atol=0.05 * float(fast.abs().max()))
    with pytest.raises(TeacherError, match="frozen teacher"):
        load_model(tmp_path / "teacher")


def test_the_form_is_the_native_one_unless_another_is_asked_for(tmp_path) -> None:
    model, folder = a_network(), tmp_path / "teacher"
    card = save_teacher(model, folder)
    to_onnx(model, folder / "model.onnx")
    card = dataclasses.replace(card, forms={**card.forms, "onnx": "model.onnx"}).sealed(folder)
    card.save(folder)
    assert isinstance(load_teacher(folder)._hidden[0], type(model))
    crossed = load_teacher(folder, form="onnx")
    assert isinstance(crossed._hidden[0], torch.fx.GraphModule)
    torch.testing.assert_close(
        crossed(pixels()), load_teacher(folder, form="safetensors")(pixels()), rtol=1e-5, atol=1e-5
    )
    dataclasses.replace(card, architecture="resnext50").save(folder)  # one that only the other form can answer for
    torch.testing.assert_close(load_teacher(folder)(pixels()), crossed(pixels()))
    for form, said in (("keras", "no form 'keras'"), ("onx", "'onnx'")):
        with pytest.raises(TeacherError, match=said):
            load_teacher(folder, form=form)


def test_a_keras_file_alone_is_no_form_of_this_backend(tmp_path) -> None:
    (tmp_path / "model.keras").write_bytes(b"something")
    Card(classes=3, input_size=(8, 8), forms={"keras": "model.keras"}).sealed(tmp_path).save(tmp_path)
    for form in (None, "keras"):
        with pytest.raises(TeacherError, match=r"no form this backend loads.*keras.*model\.onnx"):
            load_teacher(tmp_path, form=form)


def test_a_card_that_does_not_fit_its_files_is_refused(tmp_path) -> None:
    folder = tmp_path / "teacher"
    card = save_teacher(a_network(), folder)
    for change, said in (
        (
            {"classes": 4, "arguments": {**card.arguments, "classes": 4}},
            r"fc\.weight \(given \(3, 4\), expected \(4, 4\)\)",
        ),
        ({"architecture": "resnext50"}, "resnext50"),
        ({"arguments": {"classes": 3, "depth": 4}}, "depth"),
        ({"architecture": None}, "no form"),
    ):
        dataclasses.replace(card, **change).save(folder)
        with pytest.raises(TeacherError, match=said):
            load_teacher(folder)
    card.save(folder)
    (folder / "weights.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(TeacherError, match="SHA-256"):
        load_teacher(folder)
    card.sealed(folder).save(folder)
    with pytest.raises(TeacherError, match="no file of weights"):
        load_teacher(folder)


def test_a_card_that_does_not_fit_its_onnx_is_refused(tmp_path) -> None:
    card = onnx_folder(tmp_path / "teacher", randomised(Foreign()))
    dataclasses.replace(card, input_size=(9, 9)).save(tmp_path / "teacher")
    with pytest.raises(TeacherError, match=r"\(8, 8\).*card says \(9, 9\)"):
        load_teacher(tmp_path / "teacher")
    dataclasses.replace(card, classes=4).save(tmp_path / "teacher")
    with pytest.raises(TeacherError, match="3 classes; 4"):
        load_teacher(tmp_path / "teacher")(pixels())
    content = json.loads((tmp_path / "teacher" / "card.json").read_text())
    (tmp_path / "teacher" / "model.onnx").write_bytes(b"\0" * 100)
    Card.from_dict({**content, "classes": 3}).sealed(tmp_path / "teacher").save(tmp_path / "teacher")
    with pytest.raises(TeacherError, match=r"model\.onnx"):
        load_teacher(tmp_path / "teacher")


def test_an_operator_onnx2torch_does_not_know_is_named_with_its_node(tmp_path) -> None:
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalMaxPool", ["images"], ["top"], name="the_pool"),
        helper.make_node("Flatten", ["top"], ["scores"]),
    ]
    ends = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    ends.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]))
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "model.onnx")
    Card(classes=3, input_size=(8, 8), forms={"onnx": "model.onnx"}).sealed(tmp_path).save(tmp_path)
    with pytest.raises(TeacherError, match=r"GlobalMaxPool \(node 'the_pool', opset 17\).*opset 17 and plainer layers"):
        load_teacher(tmp_path)
