"""What a distillation says of itself in words."""

from bridge.distilling import summary_of

RESULT = {
    "views": 800, "source": "city.jpg", "student_top1": None, "agreement": 0.5, "stored_views": None, "frames": None,
}  # fmt: skip


def test_views_that_are_new_in_every_epoch_are_counted_together():
    assert summary_of(RESULT)[0].startswith("The student saw 800 views of city.jpg, each labelled by the teacher, and")


def test_views_that_are_shown_again_are_counted_once():
    said = summary_of({**RESULT, "stored_views": 100})[0]
    assert said.startswith("The student saw 100 views of city.jpg, each labelled once by the teacher and shown 8 times")
