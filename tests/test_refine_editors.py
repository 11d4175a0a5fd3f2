"""What editors share: which pictures that come back can be used, and what of them is kept."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from standins import picture

from sdg.defects import Defect, DefectSet
from sdg.refine.editors import EditError, Task, candidate, paste, usable

IMAGE = picture(0, (48, 32))
EDITED = picture(1, (48, 32))
HALF = Image.fromarray(np.repeat(np.array([[0] * 20 + [128] * 8 + [255] * 20], np.uint8), 32, axis=0))


def task(image=IMAGE, mask=None, **more):
    defects = DefectSet([Defect((100, 100, 500, 500), "artifact", "a smear", 60)])
    return Task(image, "a car", defects, mask, **{"instruction": "Remove the smear.", "prompt": "a car"} | more)


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (None, "the editor returned no picture"),
        (Image.new("RGB", (48, 32)), "the editor returned a black picture, as safety filters do"),
        (Image.new("L", (48, 32)), "a black picture"),
        (picture(1, (32, 48)), "the editor returned 32 x 48 pixels for a picture of 48 x 32"),
        (picture(1, (1, 1)), "the editor returned 1 x 1 pixels for a picture of 48 x 32"),
    ],
)
def test_pictures_that_cannot_be_used(edited, message):
    with pytest.raises(EditError, match=message):
        usable(edited, task())


@pytest.mark.parametrize(
    "edited", [EDITED, EDITED.convert("RGBA"), EDITED.convert("L"), EDITED.resize((96, 64)), EDITED.resize((93, 64))]
)
def test_other_modes_and_sizes_come_back_in_the_picture_s(edited):
    found = usable(edited, task())
    assert (found.mode, found.size) == ("RGB", (48, 32))


def test_a_black_picture_may_stay_black():
    black = Image.new("RGB", (48, 32))
    assert usable(black, task(image=black)) == black


def test_pasting_keeps_what_is_outside_bit_by_bit():
    found, image, edited = (np.asarray(p).astype(int) for p in (paste(IMAGE, EDITED, HALF), IMAGE, EDITED))
    assert np.array_equal(found[:, :20], image[:, :20])
    assert np.array_equal(found[:, 28:], edited[:, 28:])
    mean = (image[:, 20:28] * 127 + edited[:, 20:28] * 128) / 255
    assert np.abs(found[:, 20:28] - mean).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 77, 128, 254, 255])
def test_pasting_is_the_weighed_mean_at_any_level(level):
    grey = [Image.fromarray(np.stack([v] * 3, -1)) for v in np.mgrid[:256, :256].astype(np.uint8)]
    image, edited = (np.asarray(g).astype(int) for g in grey)
    found = np.asarray(paste(*grey, Image.new("L", (256, 256), level))).astype(int)
    assert np.abs(found - (image * (255 - level) + edited * level) / 255).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("edited", "mask", "message"),
    [
        (EDITED, HALF.convert("1"), "mask has mode '1', not 'L'"),
        (EDITED, HALF.resize((10, 10)), r"differ in size: \(48, 32\), \(48, 32\), \(10, 10\)"),
        (picture(1, (10, 10)), HALF, r"differ in size: \(48, 32\), \(10, 10\), \(48, 32\)"),
    ],
)
def test_pasting_refuses_what_does_not_fit(edited, mask, message):
    with pytest.raises(ValueError, match=message):
        paste(IMAGE, edited, mask)


@pytest.mark.parametrize(
    ("mask", "local", "expected"),
    [(HALF, False, EDITED), (None, True, EDITED), (HALF, True, paste(IMAGE, EDITED, HALF))],
)
def test_a_local_editor_gives_back_only_what_lies_in_the_mask(mask, local, expected):
    assert candidate(EDITED.resize((96, 64), Image.Resampling.NEAREST), task(mask=mask), local).size == (48, 32)
    assert candidate(EDITED, task(mask=mask), local) == expected
