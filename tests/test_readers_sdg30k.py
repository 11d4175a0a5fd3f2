"""SDG-30K: its four field layouts, think text, pictures elsewhere."""

import pytest
from layouts import lines, pictures, truth, write_sdg30k

from sdg.defects import Defect
from sdg.readers import read

BOX = {"box_2d": [100, 200, 300, 700], "description": "bent", "importance": 40}


def one(root, row, **options):
    pictures(root, truth(1))
    lines(root / "train.jsonl", [{"filename": "00000.png", "caption": "a cat", **row}])
    return next(read(root, **options))


@pytest.mark.parametrize(
    ("row", "order", "box"),
    [
        ({"ann_translated_bboxes": [BOX | {"label": "artifact"}]}, None, (100, 200, 300, 700)),
        ({"artifact_bboxes": [BOX], "misalignment_bboxes": []}, None, (100, 200, 300, 700)),
        ({"gemini_artifact_bboxes": [BOX], "gemini_misalignment_bboxes": []}, None, (200, 100, 700, 300)),
        ({"gt_artifact_bboxes": [BOX], "gt_misalignment_bboxes": []}, "xyxy", (100, 200, 300, 700)),
        ({"gt_artifact_bboxes": [BOX], "gt_misalignment_bboxes": []}, "yxyx", (200, 100, 700, 300)),
    ],
)
def test_field_layouts_and_their_orders(row, order, box, tmp_path):
    record = one(tmp_path, row, order=order)
    assert list(record.defects) == [Defect(box, "artifact", "bent", 40)]
    assert (record.caption, record.split) == ("a cat", "train")


def test_an_order_that_nobody_says_is_asked_for(tmp_path):
    row = {"gt_artifact_bboxes": [BOX], "gt_misalignment_bboxes": []}
    with pytest.raises(ValueError, match=r'does not say in which order .* order="xyxy" .* or order="yxyx"'):
        one(tmp_path, row)


@pytest.mark.parametrize("row", [{"gemini_artifact_bboxes": [BOX], "gemini_misalignment_bboxes": []}])
def test_a_declared_order_is_not_overruled(row, tmp_path):
    with pytest.raises(ValueError, match="line 1: order='xyxy' contradicts the layout: these boxes are yxyx"):
        one(tmp_path, row, order="xyxy")


def test_half_of_a_field_layout_is_no_clean_picture(tmp_path):
    with pytest.raises(ValueError, match="defects missing"):
        one(tmp_path, {"artifact_bboxes": []})


@pytest.mark.parametrize("key", ["raw_response", "response"])
def test_think_text_is_kept(key, tmp_path):
    text = "<think>Step 1. look</think>\n<answer>[]</answer>"
    assert one(tmp_path, {"ann_translated_bboxes": [], key: text}).defects.reasoning == "Step 1. look"
    assert one(tmp_path, {"ann_translated_bboxes": [], key: "nothing to see"}).defects.reasoning is None


def test_pictures_may_be_elsewhere_and_named_by_a_path_from_another_machine(tmp_path):
    source = write_sdg30k(tmp_path / "data", truth(4))
    rows = [{"image_path": f"/home/someone/{i.name}", "ann_translated_bboxes": []} for i in truth(4)]
    lines(tmp_path / "elsewhere.jsonl", rows)
    found = list(read(tmp_path / "elsewhere.jsonl", image_folder=source / "images"))
    assert [r.image_file.path for r in found] == [str(source / "images" / i.name) for i in truth(4)]


def test_a_thin_box_keeps_an_area(tmp_path):
    box = BOX | {"box_2d": [100.2, 200, 100.4, 700]}
    assert one(tmp_path, {"artifact_bboxes": [box], "misalignment_bboxes": []}).defects[0].box == (100, 200, 101, 700)
