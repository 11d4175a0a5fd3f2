import re
from collections import Counter

import numpy as np
import pytest

from sdg import microworld
from sdg.microworld.artifacts import VISIBLE
from sdg.microworld.captions import patterns
from sdg.microworld.kinds import KINDS, WORDS
from sdg.microworld.scene import SPLITS, sample_backdrop, sample_plan, scene_class
from sdg.microworld.shapes import LETTERS, capsule, circle, polygon, rectangle, ring
from sdg.microworld.wording import REASONS, SEMANTIC, SUBTYPE, VOCABULARY, importance


@pytest.fixture(scope="module")
def records():
    return list(microworld.generate(240, seed=11, split="train"))


def pixels(image):
    return np.asarray(image, dtype=np.int16)


def tight_box(record, change):
    """Box on the grid of the pixels that differ from the clean picture by ``change`` or more."""
    ys, xs = np.nonzero(np.abs(pixels(record.image) - pixels(record.clean_image)).max(axis=2) >= change)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * 1000 / record.image.width


def test_same_arguments_give_the_same_bytes_and_records_do_not_depend_on_their_neighbours():
    first = list(microworld.generate(6, seed=5, split="validation"))
    again = list(microworld.generate(2, seed=5, split="validation", start=3))
    for a, b in zip(first[3:5], again, strict=True):
        assert a.image.tobytes() == b.image.tobytes()
        assert (a.caption, a.defects, a.defects.reasoning, a.id) == (b.caption, b.defects, b.defects.reasoning, b.id)


def test_seeds_and_splits_differ():
    pictures = {
        next(microworld.generate(1, seed=seed, split=split)).image.tobytes() for seed in (0, 1) for split in SPLITS
    }
    assert len(pictures) == 2 * len(SPLITS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"split": "dev"}, "split='dev'"), ({"seed": -1}, "seed=-1"), ({"size": 32}, "size=32")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        next(microworld.generate(**{"n": 1, "seed": 0, **arguments}))


def test_composition_follows_the_stated_shares(records):
    counts = Counter((bool(r.defects.artifacts), bool(r.defects.misalignments)) for r in records)
    shares = {key: count / len(records) for key, count in counts.items()}
    assert shares[(False, False)] == pytest.approx(0.25, abs=0.08)
    assert shares[(True, False)] == pytest.approx(0.30, abs=0.09)
    assert shares[(False, True)] == pytest.approx(0.20, abs=0.08)
    assert shares[(True, True)] == pytest.approx(0.25, abs=0.09)
    assert max(len(r.defects) for r in records) <= 4


def test_every_kind_of_defect_occurs(records):
    seen = {kind for r in records for kind in r.kinds}
    assert seen == {*microworld.ARTIFACTS, *microworld.MISALIGNMENTS} == set(REASONS) == set(SEMANTIC) == set(SUBTYPE)


def test_without_artifacts_the_picture_is_the_clean_one(records):
    for r in records:
        same = r.image.tobytes() == r.clean_image.tobytes()
        assert same == (not r.defects.artifacts)


def test_artifact_boxes_cover_the_changed_pixels_and_one_alone_is_tight(records):
    size = records[0].image.width
    alone = 0
    for r in records:
        if not r.defects.artifacts:
            continue
        changed = np.abs(pixels(r.image) - pixels(r.clean_image)).max(axis=2) >= VISIBLE + 1
        covered = np.zeros_like(changed)
        for d in r.defects.artifacts:
            x0, y0, x1, y1 = d.to_pixels(size, size)
            covered[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
        assert not (changed & ~covered).any()
        if len(r.defects.artifacts) == 1:
            # Rounding to bytes may move a change by one either way.
            alone += 1
            inner, outer = (tight_box(r, VISIBLE + by) for by in (1, -1))
            x0, y0, x1, y1 = r.defects.artifacts[0].box
            assert outer[0] - 1 <= x0 <= inner[0] + 1
            assert outer[1] - 1 <= y0 <= inner[1] + 1
            assert inner[2] - 1 <= x1 <= outer[2] + 1
            assert inner[3] - 1 <= y1 <= outer[3] + 1
    assert alone > 20


def test_misalignment_boxes_follow_the_rule(records):
    for r in records:
        objects = [tuple(o["box"]) for o in r.objects]
        for kind, d in zip(r.kinds, r.defects, strict=True):
            if kind in ("wrong_colour", "wrong_object", "extra_object"):
                assert d.box in objects
            elif kind in ("wrong_count", "wrong_relation", "missing_object"):
                inside = [o for o in objects if o[0] >= d.box[0] and o[2] <= d.box[2]]
                assert d.box[0] in {o[0] for o in inside}
                assert d.box[2] in {o[2] for o in inside}


def test_what_is_wrong_is_said_truly(records):
    for r in records:
        shown = Counter(o["kind"] for o in r.objects)
        for kind, d in zip(r.kinds, r.defects, strict=True):
            if kind == "missing_object":
                lost = next(k for k in KINDS if re.search(rf"\b{k}\b", r.caption) and shown[k] == 0)
                assert lost in d.reason
            if kind == "extra_object":
                extra = next(k for k in KINDS if k in d.reason)
                assert shown[extra] == 1
                assert not re.search(rf"\b{extra}", r.caption)
            if kind == "wrong_colour":
                at = next(o for o in r.objects if tuple(o["box"]) == d.box)
                assert at["colour"] in d.reason
                assert f"{at['colour']} {at['kind']}" not in r.caption


def test_a_clean_picture_shows_what_its_caption_says(records):
    for r in records:
        if not r.defects:
            for o in r.objects:
                assert re.search(rf"{o['colour']} ({o['kind']}|people)", r.caption)


def test_reasons_are_six_to_fourteen_words_of_the_vocabulary(records):
    words = set(VOCABULARY)
    for r in records:
        for d in r.defects:
            assert 6 <= len(d.reason.split()) <= 14, d.reason
            assert set(d.reason.split()) <= words
        for text in (r.caption, r.defects.reasoning):
            assert set(re.findall(r"[A-Za-z]+(?:-[A-Za-z]+)*|[^\w\s]", text)) <= words


def test_think_text_has_three_steps_and_no_coordinates(records):
    for r in records:
        assert re.match(r"Step 1: .+\nStep 2: .+\nStep 3: .+\.$", r.defects.reasoning)
        assert not re.search(r"\d{2}", r.defects.reasoning)


def test_splits_share_no_pattern_and_no_scene():
    texts = {split: {p for forms in patterns(split).values() for p in forms} for split in SPLITS}
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    for split in ("validation", "test"):
        learnt = {w for p in texts["train"] for w in p.split()}
        assert {w for p in texts[split] for w in p.split()} - learnt <= {"that", "is"}
    classes = [set(c) for c in SPLITS.values()]
    assert sum(map(len, classes)) == len(set.union(*classes)) == 10


def test_scene_class_depends_on_the_scene_alone():
    rng = np.random.default_rng(0)
    plan, backdrop = sample_plan(rng), sample_backdrop(rng)
    assert scene_class(plan, backdrop) == scene_class(plan, backdrop)
    spread = Counter(scene_class(sample_plan(rng), sample_backdrop(rng)) for _ in range(500))
    assert set(spread) == set(range(10))


def test_uncaptioned_records_have_artifacts_only():
    drawn = list(microworld.generate(40, seed=3, split="train", uncaptioned=1.0))
    assert all(r.caption == "" and not r.defects.misalignments for r in drawn)
    assert any(r.defects.artifacts for r in drawn)
    assert all(r.defects.reasoning.startswith("Step 1: no caption.") for r in drawn)


def test_other_sizes_keep_the_scene():
    small, large = (next(microworld.generate(1, seed=2, split="train", size=s)) for s in (96, 256))
    assert large.image.size == (256, 256)
    assert small.caption == large.caption
    assert [o["kind"] for o in small.objects] == [o["kind"] for o in large.objects]
    for a, b in zip(small.objects, large.objects, strict=True):
        assert np.abs(np.subtract(a["box"], b["box"])).max() < 30


def test_importance_formula():
    box = (250, 200, 750, 800)
    expected = 35 * 0.5 + 30 * SEMANTIC["warp"] + 20 * min(1, (500 * 600) ** 0.5 / 600) + 15 * 1.0
    assert importance("warp", box, 0.5) == round(expected)
    assert importance("warp", box, 1.0) > importance("warp", box, 0.5) > importance("wrong_shadow", box, 0.5)
    assert importance("warp", (0, 200, 500, 800), 0.5) < importance("warp", box, 0.5)


@pytest.mark.parametrize(
    ("shape", "x", "y", "distance"),
    [
        (circle(0, 0, 1), 2, 0, 1),
        (circle(0, 0, 1), 0, 0, -1),
        (ring(0, 0, 1, 0.2), 1, 0, -0.1),
        (rectangle(0, 0, 2, 2), 3, 1, 1),
        (rectangle(0, 0, 2, 2), 1, 1, -1),
        (capsule(0, 0, 2, 0, 0.5), 1, 1.5, 1),
        (polygon((0, 0), (2, 0), (2, 2), (0, 2)), 1, 1, -1),
        (polygon((0, 0), (2, 0), (2, 2), (0, 2)), 3, 1, 1),
    ],
)
def test_signed_distances(shape, x, y, distance):
    assert float(shape(np.float32([[x]]), np.float32([[y]]))[0, 0]) == pytest.approx(distance, abs=1e-5)


def test_signs_are_written_in_known_letters():
    assert {letter for word in WORDS for letter in word} <= set(LETTERS)


def test_clean_pictures_are_the_ones_that_the_captions_ask_for():
    for record in microworld.generate(12, seed=11, split="train", clean=True):
        assert not record.defects
        assert record.image.tobytes() == record.clean_image.tobytes()
