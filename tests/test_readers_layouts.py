"""What is particular to a layout: categories, masks, heatmaps, annotations of pictures that are not listed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import SIZE, heatmaps, lines, pictures, png, truth, write_coco, write_genblemish, write_hadm, write_richhf
from PIL import Image

from sdg.readers import read
from sdg.readers.masks import box_of, boxes_of, decoded, intensity


def edited(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "categories", "type", "subtype"),
    [
        ("six fingers", {"six fingers": "artifact"}, "artifact", None),
        ("six fingers", {"six fingers": "distorted_anatomy"}, "artifact", "distorted_anatomy"),
        ("six fingers", {"six fingers": ("artifact", "garbled_text")}, "artifact", "garbled_text"),
        ("no hat", {"no hat": "missing_object"}, "misalignment", "missing_object"),
        ("Garbled text", None, "artifact", "garbled_text"),
        ("wrong-relation", None, "misalignment", "wrong_relation"),
    ],
)
def test_coco_categories(name, categories, type, subtype, tmp_path):
    path = edited(write_coco(tmp_path, truth(1)), lambda c: c["categories"][0].update(name=name))
    (defect,) = next(read(path, categories=categories)).defects
    assert (defect.type, defect.subtype) == (type, subtype)


def test_a_category_that_nobody_maps_is_an_unknown_label(tmp_path):
    path = edited(write_coco(tmp_path, truth(1)), lambda c: c["categories"][0].update(name="cat"))
    with pytest.raises(ValueError, match=r"image 0 .*unknown label: defect 0 label='cat'"):
        next(read(path))


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ({"a": "nonsense"}, "'a' goes to 'nonsense', which is no type"),
        ({"a": ("artifact", "missing_object")}, "'missing_object' is no subtype of artifact"),
        ({"a": ("artifact", "garbled_text", "x")}, "which is no type"),
    ],
)
def test_a_wrong_mapping_is_refused_at_once(categories, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(write_coco(tmp_path, truth(1)), categories=categories)


def test_coco_annotations_of_no_image_are_told(tmp_path):
    path = edited(write_coco(tmp_path, truth(4)), lambda c: c["images"].pop())
    reading = read(path, policy="skip")
    n = len(list(reading))
    assert n == 3
    assert reading.report.counts == ({"broken line": 1} if truth(4)[3].defects else {})


def test_coco_without_sizes_asks_the_picture(tmp_path):
    path = edited(write_coco(tmp_path, truth(4)), lambda c: [i.pop("width") for i in c["images"]])
    assert [list(r.defects) for r in read(path)] == [list(i.defects) for i in truth(4)]


def test_hadm_levels_and_tags(tmp_path):
    source = write_hadm(tmp_path, truth(2))
    path = source / "annotations" / "00001.json"
    edited(path, lambda c: c["annotation"][0].update(level="mild"))
    record = list(read(source))[1]
    assert record.kinds == ("hand", "human with extra arm")
    assert [d.subtype for d in record.defects] == ["distorted_anatomy", "duplicated_or_missing_part"]
    assert list(read(source, levels=["severe"]))[1].kinds == ("human with extra arm",)
    edited(path, lambda c: c["human"][0].update(tag=["human without shadow"]))
    with pytest.raises(ValueError, match=r"00001.json .*unknown label: defect 1 label='human without shadow'"):
        list(read(source))


def test_hadm_a_file_without_either_list_is_not_clean(tmp_path):
    source = write_hadm(tmp_path, truth(2))
    edited(source / "annotations" / "00001.json", lambda c: [c.pop("annotation"), c.pop("human")])
    reading = read(source, policy="skip")
    assert len(list(reading)) == 1
    assert reading.report.counts == {"defects missing": 1}


def test_richhf_presence_is_what_exceeds_the_threshold(tmp_path):
    pictures(tmp_path, truth(1))
    heat = np.zeros(SIZE[::-1], np.uint8)
    heat[10:20, 30:50] = 84  # 84 / 255 = 0.3294
    heat[60:70, 30:50] = 85  # 0.3333
    Image.fromarray(heat).save(tmp_path / "a.png")
    Image.fromarray(np.zeros_like(heat)).save(tmp_path / "m.png")
    row = {"filename": "00000.png", "artifact_map_path": "a.png", "misalignment_map_path": "m.png"}
    lines(tmp_path / "richhf.jsonl", [row])
    (record,) = read(tmp_path / "richhf.jsonl")
    assert [d.box for d in record.defects] == [(150, 600, 250, 700)]
    assert [len(r.defects) for r in read(tmp_path / "richhf.jsonl", threshold=0.1)] == [2]
    assert [len(r.defects) for r in read(tmp_path / "richhf.jsonl", min_area=201)] == [0]
    with pytest.raises(ValueError, match="threshold=33"):
        read(tmp_path / "richhf.jsonl", threshold=33)


def test_richhf_square_maps_lie_over_pictures_of_any_shape(tmp_path):
    from datasets import Dataset

    pictures(tmp_path, truth(1))
    heat = np.zeros((512, 512), np.uint8)
    heat[256:512, 0:128] = 255
    row = {"filename": "00000.png", "artifact_map": png(heat), "misalignment_map": png(heat * 0), "prompt": "a cat"}
    Dataset.from_list([row]).to_parquet(tmp_path / "train-00000.parquet")
    (record,) = read(tmp_path)
    assert ([d.box for d in record.defects], record.caption, record.split) == ([(0, 500, 250, 1000)], "a cat", "train")


def test_richhf_scores_and_captions_are_kept(tmp_path):
    source = write_richhf(tmp_path, truth(2))
    (source / "prompts.json").write_text(json.dumps({"00000.png": "a teapot"}))
    first, second = read(source, captions=source / "prompts.json")
    assert (first.caption, second.caption) == ("a teapot", "")
    assert first.provenance["artifact_score"] == 0.25
    assert first.provenance["prompt_misalignment_label"] == "1 1 0"


def test_richhf_a_map_that_is_not_there_is_no_clean_picture(tmp_path):
    pictures(tmp_path, truth(1))
    Image.fromarray(heatmaps(truth(1)[0])["artifact"]).save(tmp_path / "a.png")
    lines(tmp_path / "richhf.jsonl", [{"filename": "00000.png", "artifact_map_path": "a.png"}])
    with pytest.raises(ValueError, match="defects missing"):
        next(read(tmp_path / "richhf.jsonl"))


def test_a_tfrecord_that_is_cut_off_is_told(tmp_path):
    source = write_richhf(tmp_path, truth(3))
    path = source / "train.tfrecord"
    path.write_bytes(path.read_bytes()[:-20])
    reading = read(source, policy="skip")
    assert len(list(reading)) == 2
    (example,) = reading.report.examples["broken line"]
    assert example.where == "train.tfrecord, example 2"


@pytest.mark.parametrize(
    ("category", "subtype"),
    [
        ("hand distortion", "distorted_anatomy"),
        ("Extra fingers", "duplicated_or_missing_part"),
        ("text error", "garbled_text"),
        ("inconsistent shadow", "inconsistent_lighting"),
        ("other", None),
    ],
)
def test_genblemish_categories(category, subtype, tmp_path):
    source = write_genblemish(tmp_path, truth(1))
    row = json.loads((source / "annotations.jsonl").read_text())
    row["regions"][0]["category"] = category
    lines(source / "annotations.jsonl", [row])
    (record,) = read(source)
    (defect,) = record.defects
    assert (defect.type, defect.subtype, defect.importance) == ("artifact", subtype, None)
    assert record.kinds == (category,)
    (mapped,) = next(read(source, categories={category: "wrong_style"})).defects
    assert (mapped.type, mapped.subtype) == ("misalignment", "wrong_style")


@pytest.mark.parametrize(
    "mask",
    [
        [[30, 60, 49, 60, 49, 69, 30, 69]],
        {"size": [100, 200], "counts": [30 * 100 + 60, 10, *[90, 10] * 19, 100 * 200 - 4990 + 20]},
    ],
)
def test_genblemish_polygons_and_run_lengths(mask, tmp_path):
    source = write_genblemish(tmp_path, truth(1))
    row = json.loads((source / "annotations.jsonl").read_text())
    row["regions"][0]["mask"] = mask
    lines(source / "annotations.jsonl", [row])
    assert next(read(source)).defects[0].box == (150, 600, 250, 700)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("none.png", "none.png"),
        (None, "no mask"),
        ([[1, 2, 3]], "polygon="),
        ({"size": [2, 2], "counts": "abc"}, "pycocotools"),
        ({"size": [2, 2], "counts": [1]}, "add up to 1, not to 2 x 2"),
    ],
)
def test_genblemish_masks_that_are_none(mask, message, tmp_path):
    source = write_genblemish(tmp_path, truth(1))
    row = json.loads((source / "annotations.jsonl").read_text())
    row["regions"][0]["mask"] = mask
    lines(source / "annotations.jsonl", [row])
    with pytest.raises(ValueError, match=f"line 1: broken line.*{message}"):
        list(read(source))


def test_an_empty_mask_marks_nothing(tmp_path):
    source = write_genblemish(tmp_path, truth(1))
    Image.new("L", SIZE).save(source / "masks" / "00000-0.png")
    with pytest.raises(ValueError, match="malformed box"):
        list(read(source))


masks = st.integers(1, 9).flatmap(
    lambda w: st.lists(st.lists(st.booleans(), min_size=w, max_size=w), min_size=1, max_size=9)
)


@given(masks)
def test_boxes_of_a_mask_hold_all_of_it_and_their_sides_touch_it(rows):
    mask = np.array(rows)
    found = [tuple(map(int, box)) for box in boxes_of(mask)]
    covered = np.zeros_like(mask)
    for x0, y0, x1, y1 in found:
        covered[y0:y1, x0:x1] = True
        part = mask[y0:y1, x0:x1]
        assert part[0].any()
        assert part[-1].any()
        assert part[:, 0].any()
        assert part[:, -1].any()
    assert (covered >= mask).all()
    whole = box_of(mask)
    assert (whole is None) == (not found)
    if whole is not None:
        assert whole == (
            min(b[0] for b in found),
            min(b[1] for b in found),
            max(b[2] for b in found),
            max(b[3] for b in found),
        )


@given(masks)
def test_run_lengths_are_read_back(rows):
    mask = np.array(rows)
    flat = mask.T.ravel()
    counts, inside = [0], False
    for pixel in flat.tolist():
        if pixel != inside:
            counts.append(0)
            inside = pixel
        counts[-1] += 1
    runs = {"size": list(mask.shape), "counts": counts}
    assert (decoded(runs, (0, 0)) == mask).all()


@pytest.mark.parametrize(
    ("value", "top"),
    [
        (np.full((2, 3), 255, np.uint8), 1.0),
        (np.full((2, 3, 1), 51, np.int64), 0.2),
        (np.full((2, 3), 65535, np.uint16), 1.0),
        (np.full((2, 3), 0.4), 0.4),
        (Image.new("RGB", (3, 2), (255, 255, 255)), 1.0),
        (png(np.full((2, 3), 51, np.uint8)), 0.2),
        ([[51, 51, 51], [51, 51, 51]], 0.2),
    ],
)
def test_heatmaps_come_to_one_range(value, top):
    heat = intensity(value)
    assert heat.shape == (2, 3)
    assert heat.max() == pytest.approx(top)
