"""What editors are told in each of the four modes."""

import numpy as np
import pytest
from PIL import Image

from sdg import Defect
from sdg.refine.feedback import Feedback, task_of

ARTIFACT = Defect((100, 100, 300, 300), "artifact", "The chimney melts.", 30)
MISALIGNMENT = Defect((500, 500, 900, 900), "misalignment", "the house is blue,\n not red", 92)


def task(feedback, defects=(ARTIFACT, MISALIGNMENT)):
    return task_of(Image.new("RGB", (100, 100), "grey"), "a red house", defects, feedback, 0.03)


@pytest.mark.parametrize(
    ("feedback", "boxes", "text"),
    [
        (Feedback.FIXED, False, False),
        (Feedback.TEXT, False, True),
        (Feedback.BOXES, True, False),
        (Feedback.BOXES_AND_TEXT, True, True),
    ],
)
def test_each_mode_tells_what_it_is_called_after(feedback, boxes, text):
    asked = task(feedback)
    assert (asked.mask is not None) is boxes
    assert (asked.overlay is not None) is boxes
    assert ("frame" in asked.instruction) is boxes
    for words in (asked.instruction, asked.prompt + asked.avoid):
        assert ("the house is blue, not red" in words) is text
        assert ("The chimney melts" in words) is text
    assert "a red house" in asked.instruction
    assert asked.prompt.startswith("a red house")
    assert len(asked.defects) == (0 if feedback is Feedback.FIXED else 2)


def test_a_flaw_is_named_as_what_to_avoid_and_never_as_what_to_draw():
    asked = task(Feedback.BOXES_AND_TEXT)
    assert "chimney" not in asked.prompt
    assert asked.avoid == "The chimney melts"
    assert "1. the house is blue, not red. 2. The chimney melts." in asked.instruction


def test_the_overlay_has_the_pictures_size_and_shows_the_boxes():
    asked = task(Feedback.BOXES)
    assert asked.overlay.size == asked.image.size
    assert (np.asarray(asked.overlay) != np.asarray(asked.image)).any()


def test_a_defect_without_a_reason_still_says_something():
    asked = task(Feedback.TEXT, [Defect((0, 0, 10, 10), "artifact", "", None)])
    assert "a visual flaw" in asked.instruction
