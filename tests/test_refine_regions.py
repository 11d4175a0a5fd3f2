"""Masks, the regions they fall into, and the paste that leaves all else alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdg import Defect
from sdg.refine.regions import Rectangle, cells, feathered, groups, grown, mask_of, mixed, regions, window

SIZE = (200, 100)


def defect(box, importance=50, type="artifact"):
    return Defect(box, type, "it is wrong", importance)


@pytest.mark.parametrize(
    ("box", "grow", "expected"),
    [
        ((100, 100, 200, 300), 0.0, (20, 10, 40, 30)),
        ((100, 100, 200, 300), 0.1, (10, 0, 50, 40)),
        ((0, 0, 1000, 1000), 0.1, (0, 0, 200, 100)),
        ((500, 500, 501, 501), 0.0, (100, 50, 101, 51)),
        ((999, 999, 1000, 1000), 0.0, (199, 99, 200, 100)),
    ],
)
def test_a_box_grows_within_the_picture(box, grow, expected):
    assert grown(defect(box), SIZE, grow) == expected


@given(
    st.tuples(st.integers(0, 999), st.integers(0, 999), st.integers(1, 1000), st.integers(1, 1000)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.floats(0, 0.5),
)
@settings(max_examples=100, deadline=None)
def test_every_box_marks_a_pixel_of_every_picture(corners, size, grow):
    x0, y0, x1, y1 = corners
    if x0 >= x1 or y0 >= y1:
        return
    left, top, right, bottom = grown(defect(corners), size, grow)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert np.asarray(mask_of([defect(corners)], size, grow)).any()


def test_overlapping_boxes_are_one_group_and_the_most_important_comes_first():
    a, b, c = defect((0, 0, 100, 100), 20), defect((90, 90, 200, 200), 40), defect((600, 600, 700, 700), 90)
    chain = defect((180, 180, 300, 300), 10)
    assert groups([a, b, c, chain], (100, 100), 0.0) == [(c,), (b, a, chain)]
    unknown = Defect((400, 0, 500, 100), "artifact", "", None)
    assert groups([a, unknown], (100, 100), 0.0)[0] == (unknown,)


def test_boxes_that_only_touch_are_apart_until_they_grow():
    a, b = defect((0, 0, 100, 100)), defect((100, 0, 200, 100))
    assert len(groups([a, b], (100, 100), 0.0)) == 2
    assert len(groups([a, b], (100, 100), 0.02)) == 1


def test_the_regions_of_a_mask_are_its_connected_parts():
    mask = mask_of([defect((0, 0, 100, 100)), defect((50, 50, 200, 200)), defect((800, 0, 900, 500))], SIZE, 0.0)
    assert regions(mask) == [Rectangle(0, 0, 40, 20), Rectangle(160, 0, 180, 50)]
    assert regions(Image.new("L", SIZE)) == []


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ((90, 40, 110, 60), (80, 30, 120, 70)),
        ((0, 0, 20, 20), (0, 0, 40, 40)),
        ((190, 90, 200, 100), (168, 68, 200, 100)),
        ((0, 0, 200, 100), (0, 0, 200, 100)),
    ],
)
def test_a_window_is_a_square_within_the_picture(region, expected):
    assert window(Rectangle(*region), SIZE, context=2.0, least=32) == expected


def test_an_edit_fades_out_within_the_mask_and_not_at_the_border():
    mask = mask_of([defect((0, 200, 500, 800))], (100, 100), 0.0)
    share = feathered(mask, 4)
    inside = np.asarray(mask) > 0
    assert share[~inside].max() == 0
    assert share[inside].min() > 0
    assert share[50, 0] == 1
    assert share[50, 49] == pytest.approx(0.2)
    assert share[50, 40] == 1
    assert feathered(mask, 0)[inside].min() == 1
    assert feathered(Image.new("L", (5, 5), 255), 4).min() == 1


def test_what_is_not_edited_stays_to_the_bit():
    rng = np.random.default_rng(0)
    old, new = (Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(2))
    mask = mask_of([defect((200, 200, 600, 700))], old.size, 0.0)
    out = np.asarray(mixed(old, new, feathered(mask, 3)))
    outside = np.asarray(mask) == 0
    assert (out[outside] == np.asarray(old)[outside]).all()
    assert (out != np.asarray(old)).any()
    assert (np.asarray(mixed(old, new, np.ones((40, 60), np.float32))) == np.asarray(new)).all()


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (100, 50), (1000, 1000), (17, 33)])
def test_cells_are_those_that_the_mask_touches(size):
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[size[1] - 1, 0] = 255
    found = cells(Image.fromarray(mask), 16)
    assert found[15, 0]
    assert not found[0].any()
    assert not found[:, 15].any()
