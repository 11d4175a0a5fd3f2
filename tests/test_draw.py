from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdg.defects import Defect, DefectSet, DefectType
from sdg.draw import STYLES, _dashes, contact_sheet, overlay, place

GREY = (128, 128, 128)


def picture(size: tuple[int, int] = (600, 600), mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", size, GREY).convert(mode)


def defect(box=(250, 250, 750, 750), type="artifact", importance: int | None = 50) -> Defect:
    return Defect(box, type, "the roof is torn", importance)


def is_line(image: Image.Image, type: str) -> np.ndarray:
    return (np.asarray(image) == STYLES[DefectType(type)].line).all(axis=2)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((128, 128), (512, 512)),
        ((100, 200), (512, 1024)),
        ((600, 513), (600, 513)),
        ((1024, 768), (1024, 768)),
        ((1, 1), (512, 512)),
        ((10, 1000), (20, 2048)),
        ((4000, 4), (4000, 4)),
    ],
)
def test_small_pictures_are_enlarged_within_bounds(size, drawn):
    assert overlay(picture(size), DefectSet((defect(),))).size == drawn


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "LA"])
def test_every_mode_is_drawn_in_colour(mode):
    drawn = overlay(picture(mode=mode), [defect()])
    assert drawn.mode == "RGB"
    assert is_line(drawn, "artifact").any()


def test_the_picture_given_is_left_as_it_is():
    given_picture = picture()
    before = given_picture.tobytes()
    assert overlay(given_picture, [defect()]) is not given_picture
    assert given_picture.tobytes() == before


def test_no_defect_draws_nothing():
    assert overlay(picture(), DefectSet()).tobytes() == picture().tobytes()


@pytest.mark.parametrize("type", ["artifact", "misalignment"])
def test_the_frame_runs_round_the_box_and_leaves_the_inside_alone(type):
    drawn = overlay(picture((1000, 1000)), [defect((200, 300, 600, 700), type)], labels=False)
    inside = np.asarray(drawn)[305:695, 205:595]
    assert (inside == GREY).all()
    rows, columns = np.nonzero(is_line(drawn, type))
    assert 300 - rows.min() == rows.max() - 699 == 200 - columns.min() == columns.max() - 599 > 0


@pytest.mark.parametrize(("type", "low", "high"), [("artifact", 1.0, 1.0), ("misalignment", 0.4, 0.75)])
def test_artifacts_are_solid_and_misalignments_dashed(type, low, high):
    drawn = is_line(overlay(picture((1000, 1000)), [defect((200, 300, 800, 700), type)], labels=False), type)
    top = drawn[np.nonzero(drawn)[0].min()]
    first, last = np.nonzero(top)[0][[0, -1]]
    assert low <= top[first : last + 1].mean() <= high


def test_the_most_important_frame_is_on_top():
    both = [defect(type="artifact", importance=80), defect(type="misalignment", importance=20)]
    drawn = overlay(picture(), both, labels=False)
    assert is_line(drawn, "artifact").any()
    assert not is_line(drawn, "misalignment").any()


def test_lines_grow_with_the_picture():
    def thickness(side: int) -> int:
        return int(is_line(overlay(picture((side, side)), [defect()], labels=False), "artifact")[side // 2].sum()) // 2

    assert thickness(2048) == 4 * thickness(512)


@pytest.mark.parametrize("importance", [None, 1, 55, 100])
def test_tags_add_to_the_frame(importance):
    one = [defect(importance=importance)]
    assert overlay(picture(), one).tobytes() != overlay(picture(), one, labels=False).tobytes()


@pytest.mark.parametrize(("importance", "same"), [(None, True), (55, False)])
def test_a_tag_names_the_tier_where_there_is_one(importance, same):
    one = [defect(importance=importance)]
    assert (overlay(picture(), one).tobytes() == overlay(picture(), one, tiers=False).tobytes()) is same


def test_a_box_at_the_edge_still_shows_all_four_sides():
    drawn = is_line(overlay(picture(), [defect((0, 0, 1000, 1000))], labels=False), "artifact")
    assert drawn[0, 300]
    assert drawn[-1, 300]
    assert drawn[300, 0]
    assert drawn[300, -1]


boxes = st.tuples(*[st.integers(0, 500)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(boxes, st.tuples(st.integers(1, 200), st.integers(1, 60)), st.lists(boxes, max_size=4))
def test_tags_stay_inside_the_picture(frame, tag, placed):
    x0, y0, x1, y1 = place(frame, tag, (501, 501), placed)
    assert 0 <= x0 < x1 <= 500
    assert 0 <= y0 < y1 <= 500
    assert (x1 - x0, y1 - y0) == tag


def test_tags_of_one_box_do_not_cover_each_other():
    first = place((100, 100, 300, 300), (60, 20), (500, 500), [])
    second = place((100, 100, 300, 300), (60, 20), (500, 500), [first])
    assert first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]


@given(st.integers(0, 100), st.integers(0, 400), st.integers(1, 9))
def test_dashes_cover_both_corners_and_never_overlap(start, length, width):
    dashes = _dashes(start, start + length, width)
    assert dashes[0][0] == start
    assert dashes[-1][1] == start + length
    assert all(a <= b for a, b in dashes)
    assert all(before[1] < after[0] for before, after in pairwise(dashes))


def record(caption: str | None = "a red house by a lake", defects: tuple[Defect, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(image=picture((128, 128)), caption=caption, defects=DefectSet(defects))


@pytest.mark.parametrize(("n", "columns", "across", "down"), [(1, 10, 1, 1), (4, 2, 2, 2), (5, 2, 2, 3), (3, 3, 3, 1)])
def test_a_contact_sheet_has_a_cell_for_every_picture(n, columns, across, down):
    sheet = contact_sheet([record() for _ in range(n)], columns=columns, side=100)
    assert sheet.width == 5 + across * 105
    assert down * 100 < sheet.height < down * 180
    pasted = (np.asarray(sheet) == GREY).all(axis=2).sum()
    assert pasted == n * 100 * 100


@pytest.mark.parametrize(
    "item",
    [record(None), record(""), record("word " * 3000), record("w" * 3000), record(defects=(defect(),) * 30)],
    ids=["no caption", "empty caption", "long caption", "one long word", "many defects"],
)
def test_a_contact_sheet_takes_any_text(item):
    assert contact_sheet([item, record()], columns=2, side=100).width == 215


@pytest.mark.parametrize(
    ("items", "arguments", "message"),
    [([], {}, "items is empty"), ([1], {"columns": 0}, "columns=0"), ([1], {"side": 0}, "side=0")],
)
def test_a_contact_sheet_refuses_nothing_to_show(items, arguments, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet([record() for _ in items], **arguments)
