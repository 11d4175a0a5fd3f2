"""The check of the order of coordinates: what stops a reading, and what does not."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import Item, N, lines, pictures, truth, write_coco, write_sdg30k

from sdg.defects import Defect
from sdg.readers import OrderError, read
from sdg.readers.order import OrderCheck, _vote


def checked(boxes, order="xyxy", scale=(1.0, 1.0), texts=None, again=()):
    check = OrderCheck("data")
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    check.add("here", boxes, order, scale, texts or [""] * len(boxes), again)
    check.verdict(complete=True)


WIDE = (5.0, 10.0)  # a picture of 200 x 100 pixels


@pytest.mark.parametrize(
    ("boxes", "order", "scale", "found"),
    [
        ([[10, 10, 50, 50]] * 9, "xyxy", (1, 1), None),
        ([[500, 500, 100, 100]] * 9, "xyxy", (1, 1), "9 of 9 boxes .* as xywh"),
        ([[600, 600, 700, 700]] * 9, "xywh", (1, 1), "9 of 9 boxes .* as xyxy"),
        ([[20, 120, 60, 180]] * 9, "xyxy", WIDE, "9 of 9 boxes .* as x and y exchanged"),
        ([[120, 20, 180, 60]] * 9, "yxyx", WIDE, "9 of 9 boxes .* as x and y exchanged"),
        ([[20, 120, 40, 60]] * 9, "xywh", WIDE, "9 of 9 boxes .* as x and y exchanged"),
        ([[120, 20, 180, 60]] * 9, "xyxy", WIDE, None),
        # a slip alone, a few in many, and boxes that reach out a little, are bad data, not another order
        ([[20, 120, 60, 180]] + [[120, 20, 180, 60]] * 9, "xyxy", WIDE, None),
        ([[20, 120, 60, 180]] * 2 + [[120, 20, 180, 60]] * 500, "xyxy", WIDE, None),
        ([[20, 120, 60, 180]] * 4 + [[120, 20, 180, 60]] * 500, "xyxy", WIDE, "4 of 504 boxes"),
        ([[20, 50, 60, 101]] * 9, "xyxy", WIDE, None),
        # what fits in no order tells of none
        ([[-500, 10, 2000, 50]] * 9, "xyxy", (1, 1), None),
    ],
)
def test_boxes_that_fit_in_another_order_only(boxes, order, scale, found):
    if found is None:
        checked(boxes, order, scale)
    else:
        with pytest.raises(OrderError, match=found) as error:
            checked(boxes, order, scale)
        assert "\n  here: [" in str(error.value)


def test_boxes_stated_twice_are_compared():
    checked([[100, 200, 300, 700]], again=[[100, 200, 300, 700]])
    checked([[100, 200, 300, 700]], again=[[5, 5, 9, 9]])
    checked([[100, 100, 300, 300]], again=[[100, 100, 300, 300]])
    with pytest.raises(OrderError, match="1 boxes that are stated twice agree only with x and y exchanged"):
        checked([[100, 200, 300, 700]], again=[[200, 100, 700, 300]])


UPPER_RIGHT = np.array([700, 100, 900, 300.0])


@pytest.mark.parametrize(
    ("text", "vote"),
    [
        ("a smear at image-right", 1),
        ("a smear at image-left", -1),
        ("in the upper right corner", 1),
        ("in the lower left corner", -1),
        ("in the upper-left corner", 0),
        ("the sign on the right.", 1),
        ("the sign at the far left of the picture is unreadable", -1),
        ("near the bottom of the image", -1),
        ("the top edge is torn", 1),
        ("melted", 0),
        # a person's left is not the picture's
        ("the left hand has six fingers", 0),
        ("the fingers on the left hand", 0),
        ("the left side of his face", 0),
        ("the lower lip and the upper arm", 0),
        ("it is right that the bottom line is left out", 0),
    ],
)
def test_words_that_place_a_box(text, vote):
    assert _vote(UPPER_RIGHT, text) == vote


def test_words_take_enough_boxes():
    wrong = "at image-left, image-bottom"
    checked([UPPER_RIGHT] * 9, texts=[wrong] * 9)
    with pytest.raises(OrderError, match="of 10 boxes whose text says where they are, 10 agree only with x and y"):
        checked([UPPER_RIGHT] * 10, texts=[wrong] * 10)
    checked([UPPER_RIGHT] * 10, texts=[wrong] * 5 + ["at image-right"] * 5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 200))
def test_honest_words_never_stop_a_reading(seed, n):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 700, (n, 2))
    boxes = np.concatenate([low, low + rng.integers(20, 300, (n, 2))], axis=1)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    # every fifth text is wrong
    told = (middles < 500) ^ (rng.random((n, 1)) < 0.2)
    texts = [f"at image-{'left' if a else 'right'}, image-{'top' if b else 'bottom'}" for a, b in told]
    checked(boxes, texts=texts)


def test_think_text_with_a_line_for_each_defect_counts(tmp_path):
    items = [
        Item(i.name, i.caption, tuple(Defect(d.box, d.type, "melted", d.importance) for d in i.defects))
        for i in truth()
    ]
    source = write_sdg30k(tmp_path, items, transposed=True)
    read_on = list(read(source))  # nothing in these files says where anything is
    assert len(read_on) == N
    path = source / "annotations" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    placed = {i.name: i.defects for i in truth()}
    for row in rows:
        bullets = [d.reason for d in placed[row["filepath"].split("/")[1]]]
        row["response"] = "<think>" + "\n".join(["Step 3: localization", *bullets]) + "</think>\n<answer>[]</answer>"
    lines(path, rows)
    with pytest.raises(OrderError, match="whose text says where they are"):
        next(read(source))


@pytest.mark.parametrize("text_order", ["xyxy", "yxyx"])
def test_boxes_in_the_model_text_are_compared_in_the_order_that_is_said(text_order, tmp_path):
    box = {"box_2d": [100, 200, 300, 700], "label": "artifact", "description": "bent", "importance": 40}
    text = "<think>look</think><answer>" + json.dumps([box | {"box_2d": [200, 100, 700, 300]}]) + "</answer>"
    pictures(tmp_path, truth(1))
    row = {"filename": "00000.png", "ann_translated_bboxes": [box], "raw_response": text}
    lines(tmp_path / "train.jsonl", [row])
    if text_order == "yxyx":
        (record,) = read(tmp_path, text_order="yxyx")
        assert record.defects[0].box == (100, 200, 300, 700)
    else:
        with pytest.raises(OrderError, match="stated twice"):
            next(read(tmp_path))


def test_field_layouts_of_one_record_are_compared(tmp_path):
    box = {"box_2d": [100, 200, 300, 700], "description": "bent", "importance": 40}
    turned = box | {"box_2d": [200, 100, 700, 300]}
    pictures(tmp_path, truth(1))

    def row(gemini):
        clean = {"misalignment_bboxes": [], "gemini_misalignment_bboxes": []}
        return {"filename": "00000.png", "artifact_bboxes": [box], "gemini_artifact_bboxes": [gemini], **clean}

    lines(tmp_path / "train.jsonl", [row(turned)])
    (record,) = read(tmp_path)
    assert record.defects[0].box == (100, 200, 300, 700)
    assert next(read(tmp_path, fields="gemini")).defects[0].box == (100, 200, 300, 700)
    lines(tmp_path / "train.jsonl", [row(box)])
    with pytest.raises(OrderError, match="stated twice"):
        next(read(tmp_path))


def test_whoever_knows_better_reads_on(tmp_path):
    source = write_sdg30k(tmp_path, truth(), transposed=True)
    assert len(list(read(source, check_order=False))) == N


def test_width_and_height_exchanged_in_the_file(tmp_path):
    path = write_coco(tmp_path, truth())
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["width"], image["height"] = image["height"], image["width"]
    path.write_text(json.dumps(content))
    with pytest.raises(OrderError):
        list(read(path, policy="skip"))
