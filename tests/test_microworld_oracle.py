import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdg import microworld
from sdg.microworld.captions import caption
from sdg.microworld.oracle import measure, read_caption
from sdg.microworld.oracle.judging import Thing, misalignments
from sdg.microworld.oracle.recognising import SIZE, Fit, paint_map
from sdg.microworld.oracle.templates import templates
from sdg.microworld.render import _backdrop
from sdg.microworld.scene import SPLITS, Group, Plan, sample_backdrop, sample_plan

SDG = Path(microworld.__file__).parents[1]


@pytest.mark.parametrize("split", SPLITS)
def test_reading_inverts_writing(split):
    rng = np.random.default_rng(5)
    for _ in range(1500):
        plan = sample_plan(rng)
        text = caption(plan, split, rng)
        assert read_caption(text) == plan, text


def test_an_empty_caption_asks_for_nothing():
    assert read_caption(" ") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the sea at night", "names 0 groups"),
        ("a red car to the left of a blue cup and a green tree", "a side is between two"),
    ],
)
def test_captions_from_outside_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_caption(text)


def thing(kind, colour, x):
    return Thing(kind, colour, (x, 400, x + 100, 600), 100)


CAR, CUP = Group("car", "red"), Group("cup", "blue")
ROW = [thing("car", "red", 100), thing("cup", "blue", 600)]


@pytest.mark.parametrize(
    ("plan", "things", "kinds"),
    [
        (Plan((CAR, CUP), "left"), ROW, []),
        (Plan((CAR, CUP), "right"), ROW, ["wrong_relation"]),
        (Plan((CAR, CUP), "beside"), ROW[:1], ["missing_object"]),
        (Plan((CAR,), "alone"), ROW, ["extra_object"]),
        (Plan((Group("car", "green"), CUP), "left"), ROW, ["wrong_colour"]),
        (Plan((Group("boat", "red"), CUP), "left"), ROW, ["wrong_object"]),
        (Plan((Group("boat", "green"), CUP), "left"), ROW, ["missing_object", "extra_object"]),
        (Plan((Group("car", "red", 2),), "alone"), ROW[:1], ["wrong_count"]),
        (Plan((Group("car", "red", 2),), "alone"), [thing("car", "red", x) for x in (0, 200, 400)], ["wrong_count"]),
        (Plan((Group("car", "red", 2),), "alone"), [], ["missing_object"]),
        (Plan((CAR,), "alone"), [thing("car", "red", 0), thing("car", "red", 300)], ["extra_object"]),
        (Plan((CAR, CUP), "left"), [ROW[0], thing("", "", 600)], []),
    ],
)
def test_departures_from_the_plan(plan, things, kinds):
    defects, found = misalignments(plan, things)
    assert found == kinds
    assert all(d.type == "misalignment" and d.importance for d in defects)


@pytest.fixture(scope="module")
def measured():
    records = list(microworld.generate(40, seed=77, split="validation"))
    return [(r, measure(r.image, r.caption)) for r in records]


def test_most_misalignments_of_drawn_pictures_are_found_by_their_kind_and_few_are_made_up(measured):
    world = set(microworld.MISALIGNMENTS)
    same = sum(sorted(set(r.kinds) & world) == sorted(set(m.kinds) & world) for r, m in measured)
    assert same >= 0.85 * len(measured)


def test_objects_are_where_they_were_drawn(measured):
    clean = [(r, m) for r, m in measured if not r.defects.artifacts]
    right = 0
    for record, found in clean:
        drawn = sorted(record.objects, key=lambda o: o["box"][0])
        right += [(t.kind, t.colour) for t in found.things] == [(o["kind"], o["colour"]) for o in drawn] and all(
            np.abs(np.subtract(t.box, o["box"])).max() < 40 for t, o in zip(found.things, drawn, strict=True)
        )
    assert len(clean) > 10
    assert right >= 0.85 * len(clean)


def test_an_empty_scene_lacks_its_object():
    empty = _backdrop(sample_backdrop(np.random.default_rng(2)), 128)
    found = measure(Image.fromarray(np.clip(empty, 0, 255).astype(np.uint8)), "a red car")
    assert found.kinds == ("missing_object",)
    assert found.load("misalignment") == pytest.approx(1, abs=0.05)
    assert (found.load("artifact"), found.things) == (0, ())


def test_noise_is_a_heavy_load():
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    found = measure(Image.fromarray(noise), "a red car")
    assert found.load("misalignment") + found.load("artifact") > 0.8


def test_sizes_other_than_the_reference_are_scaled():
    record = next(microworld.generate(1, seed=5, split="validation", clean=True, size=256))
    found = measure(record.image, record.caption)
    assert [t.kind for t in found.things] == [o["kind"] for o in sorted(record.objects, key=lambda o: o["box"][0])]


@pytest.mark.parametrize("room", ["training", "boxflow"])
def test_training_never_sees_the_oracle(room):
    for path in (SDG / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [getattr(node, "module", None) or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not any("oracle" in n for n in names), path


@pytest.mark.parametrize(("x", "base"), [(-300.0, 64.0), (400.0, 64.0), (64.0, -200.0), (64.0, 500.0)])
def test_a_shape_beyond_the_border_is_tried_without_a_crash(x, base):
    """Generated pictures have shapes that run out of them, and poses are tried beyond the border."""
    for template in templates():
        fit = Fit(template, "red", x, base, 40.0, 0.0)
        left, top, right, bottom = fit.box
        assert 0 <= left < right <= SIZE
        assert 0 <= top < bottom <= SIZE
        assert paint_map(fit).shape == (SIZE, SIZE)
