"""Bad data: each kind is found, named, counted, and treated as the policy says."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import lines, truth, write_coco, write_hadm
from PIL import Image

from sdg.defects import Defect
from sdg.readers import read
from sdg.readers.raw import Layout, RawDefect, RawRecord
from sdg.readers.reading import Choices, Reading
from sdg.records import ImageFile

GOOD = {"box_2d": [100, 200, 300, 700], "label": "artifact", "description": "bent", "importance": 40}
BOX = (100, 200, 300, 700)


def row(name="a.png", defects=(GOOD,), **fields):
    return {"filename": name, "caption": "a cat", "ann_translated_bboxes": list(defects), **fields}


@pytest.fixture
def root(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "b.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def source(root, *rows):
    lines(root / "train.jsonl", list(rows))
    return root / "train.jsonl"


# fields of a defect that are wrong, the problem's name, what mend makes of the defect (None: the record is left out)
DEFECTS = [
    ({"box_2d": [100, 200, 1300, 700]}, "box out of range", Defect((100, 200, 1000, 700), "artifact", "bent", 40)),
    ({"box_2d": [-50, 200, 300, 700]}, "box out of range", Defect((0, 200, 300, 700), "artifact", "bent", 40)),
    ({"box_2d": [1100, 200, 1300, 700]}, "box out of range", None),
    ({"box_2d": [300, 200, 100, 700]}, "swapped corners", Defect(BOX, "artifact", "bent", 40)),
    ({"box_2d": [100, 200, 100, 700]}, "degenerate box", None),
    ({"box_2d": [100, math.nan, 300, 700]}, "box not finite", None),
    ({"box_2d": [100, math.inf, 300, 700]}, "box not finite", None),
    ({"box_2d": [100, 200, 300]}, "malformed box", None),
    ({"box_2d": ["100", "200", "300", "700"]}, "malformed box", None),
    ({"box_2d": None}, "malformed box", None),
    ({"box_2d": "100, 200, 300, 700"}, "malformed box", None),
    ({"box_2d": [True, 200, 300, 700]}, "malformed box", None),
    ({"label": "blur"}, "unknown label", None),
    ({"label": None}, "unknown label", None),
    ({"label": " Artifact"}, "unknown label", Defect(BOX, "artifact", "bent", 40)),
    ({"subtype": "six fingers"}, "unknown subtype", Defect(BOX, "artifact", "bent", 40)),
    ({"importance": "55"}, "importance as text", Defect(BOX, "artifact", "bent", 55)),
    ({"importance": None}, "importance missing", Defect(BOX, "artifact", "bent")),
    ({"importance": 0}, "importance out of range", Defect(BOX, "artifact", "bent", 1)),
    ({"importance": 250}, "importance out of range", Defect(BOX, "artifact", "bent", 100)),
    ({"importance": "high"}, "malformed importance", Defect(BOX, "artifact", "bent")),
    ({"importance": math.nan}, "malformed importance", Defect(BOX, "artifact", "bent")),
    ({"importance": True}, "malformed importance", Defect(BOX, "artifact", "bent")),
    ({"importance": 55.5}, "malformed importance", Defect(BOX, "artifact", "bent", 56)),
    ({"description": None}, "reason missing", Defect(BOX, "artifact", "", 40)),
    ({"description": "  "}, "reason missing", Defect(BOX, "artifact", "", 40)),
    ({"description": 7}, "reason missing", Defect(BOX, "artifact", "", 40)),
]


@pytest.mark.parametrize(("wrong", "problem", "mended"), DEFECTS)
def test_a_wrong_defect(wrong, problem, mended, root):
    path = source(root, row(defects=[GOOD, GOOD | wrong]), row("b.png"))
    with pytest.raises(ValueError, match=rf"train.jsonl, line 1 \(a.png\): {problem}: defect 1 ") as error:
        list(read(path))
    assert ("policy='mend' mends this" in str(error.value)) == (mended is not None)
    skipping = read(path, policy="skip")
    assert [r.id for r in skipping] == ["b.png"]
    assert (skipping.report.n_skipped, skipping.report.n_mended) == (1, 0)
    mending = read(path, policy="mend")
    first, *rest = list(mending)
    if mended is None:
        assert (first.id, rest) == ("b.png", [])
        assert mending.report.n_skipped == 1, "a record that lost a defect would claim too little"
    else:
        assert list(first.defects) == [Defect(BOX, "artifact", "bent", 40), mended]
        assert (mending.report.n_skipped, mending.report.n_mended) == (0, 1)
    for reading in (skipping, mending):
        assert dict(reading.report.counts) == {problem: 1}
        (example,) = reading.report.examples[problem]
        assert (example.where, example.id) == ("train.jsonl, line 1", "a.png")
        json.dumps(reading.report.to_json(), allow_nan=False)
        assert any(problem in line for line in reading.report.lines())


@pytest.mark.parametrize(
    ("bad", "problem", "kept"),
    [
        (row("none.png"), "missing image", False),
        (row("broken.png"), "unreadable image", False),
        (row("text.png"), "unreadable image", False),
        (row(None), "no image named", False),
        ({"filename": "a.png", "caption": "x"}, "defects missing", False),
        (row("b.png", id="b.png"), "duplicate id", True),
        (row(ann_translated_bboxes={"box": 1}), "broken line", False),
        (row(ann_translated_bboxes=["none"]), "broken line", False),
    ],
)
def test_a_wrong_record(bad, problem, kept, root):
    path = source(root, row("b.png"), bad)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"train.jsonl, line 2.*{problem}"):
        list(read(path))
    skipping = read(path, policy="skip")
    assert [r.id for r in skipping] == ["b.png"]
    mending = read(path, policy="mend")
    assert [r.id for r in mending] == ["b.png", *["b.png#2"][: int(kept)]]
    assert dict(mending.report.counts) == dict(skipping.report.counts) == {problem: 1}
    assert mending.report.n_skipped == int(not kept)


@pytest.mark.parametrize("text", ["{broken", "[1, 2]", '"text"', "\ufeff{", "[" * 100_000])
def test_a_broken_line_is_named_by_number(text, root):
    path = source(root, row("a.png"))
    path.write_text(path.read_text() + "\n" + text + "\n" + json.dumps(row("b.png")), encoding="utf-8")
    with pytest.raises(ValueError, match=r"train\.jsonl, line 3: broken line"):
        list(read(path))
    reading = read(path, policy="skip")
    assert [r.id for r in reading] == ["a.png", "b.png"]
    assert reading.report.examples["broken line"][0].where == "train.jsonl, line 3"


def test_a_line_that_is_not_utf8_is_named(root):
    path = source(root, row("a.png"))
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(ValueError, match="line 2: broken line"):
        list(read(path))


def test_an_empty_list_is_a_clean_picture_and_a_missing_one_is_not(root):
    reading = read(source(root, row("a.png", []), {"filename": "b.png"}), policy="mend")
    (clean,) = list(reading)
    assert (clean.id, len(clean.defects), clean.defects.parse_error) == ("a.png", 0, None)
    assert reading.report.counts == {"defects missing": 1}


def test_without_images_a_missing_picture_is_no_problem(root):
    reading = read(source(root, row("none.png")), images=False)
    assert [r.id for r in reading] == ["none.png"]
    assert not reading.report.counts


def test_examples_are_few_and_counts_are_not(root):
    path = source(root, *[row("a.png", [GOOD | {"importance": "5"}], id=str(k)) for k in range(20)])
    reading = read(path, policy="mend")
    assert len(list(reading)) == 20
    assert reading.report.counts == {"importance as text": 20}
    assert len(reading.report.examples["importance as text"]) == 5
    assert reading.report.lines()[0] == "20 records with 20 defects; 0 left out, 20 mended"


boxes = st.lists(st.floats(-200, 1200, allow_nan=False), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, max_size=4))
def test_mend_never_drops_a_defect_and_never_leaves_the_grid(stated):
    def raws(_):
        items = [RawDefect(box, "artifact") for box in stated]
        yield RawRecord("here", ImageFile("none.png"), items, "a", order="xyxy")

    layout = Layout("x", "X", "", lambda p: True, lambda p: raws)
    reading = Reading(layout, "x", raws, Choices(policy="mend", images=False, check_order=False))
    for record in reading:
        assert len(record.defects) == len(stated)
        for d, (x0, y0, x1, y1) in zip(record.defects, stated, strict=True):
            assert 0 <= d.box[0] < d.box[2] <= 1000
            assert 0 <= d.box[1] < d.box[3] <= 1000
            sides = sorted((x0, x1)), sorted((y0, y1))
            assert abs(d.box[0] - min(max(sides[0][0], 0), 1000)) <= 1
            assert abs(d.box[3] - min(max(sides[1][1], 0), 1000)) <= 1
    assert reading.report.n_records + reading.report.n_skipped == 1


@pytest.mark.parametrize(
    ("write", "name", "spoil", "broken"),
    [
        (write_coco, "annotations/instances.json", lambda c: c["images"].append("no object"), 1),
        (write_coco, "annotations/instances.json", lambda c: c["images"].insert(0, {"file_name": "x", "id": []}), 1),
        (write_coco, "annotations/instances.json", lambda c: c["annotations"].append(7), 1),
        (write_coco, "annotations/instances.json", lambda c: c["categories"].append(7), 0),
        (write_hadm, "annotations/00007.json", lambda c: c.update(annotation=["no object"]), 1),
        (write_hadm, "annotations/00007.json", lambda c: c.update(human={"tag": 1}), 1),
        (write_hadm, "annotations/00007.json", lambda c: c.update(image=[1]), 0),
    ],
)
def test_fields_of_another_kind_are_told_and_not_the_end(write, name, spoil, broken, tmp_path):
    source = write(tmp_path, truth(8))
    content = json.loads((tmp_path / name).read_text())
    spoil(content)
    (tmp_path / name).write_text(json.dumps(content))
    reading = read(source, policy="skip")
    assert len(list(reading)) == (7 if broken and write is write_hadm else 8)
    assert reading.report.counts["broken line"] == broken


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"provenance": "{"}, "broken line"),
        ({"defects": "none"}, "defects missing"),
        ({"defects": [1]}, "defects missing"),
        ({"image": 5}, "missing image"),
        ({"clean_image": "gone.png"}, "broken line"),
    ],
)
def test_own_records_with_fields_of_another_kind(fields, problem, root):
    good = {"id": "a", "image": "a.png", "caption": "", "defects": []}
    lines(root / "records.jsonl", [good, good | {"id": "b"} | fields])
    reading = read(root / "records.jsonl", policy="skip")
    assert [r.id for r in reading] == ["a"]
    assert reading.report.counts == {problem: 1}
