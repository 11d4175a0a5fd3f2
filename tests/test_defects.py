import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import SUBTYPES, TIERS, TYPES, Defect, DefectSet, DefectType, tier_of

corner = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda c: c[0] != c[1]).map(sorted)
defect = st.builds(
    lambda x, y, type, **fields: Defect((x[0], y[0], x[1], y[1]), type, **fields),
    corner,
    corner,
    st.sampled_from(TYPES),
    reason=st.text(max_size=20),
    importance=st.none() | st.integers(1, 100),
    confidence=st.none() | st.floats(0, 1),
)
FINE = {"box": (100, 200, 300, 400), "type": "artifact", "reason": "six fingers", "importance": 55}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box": (-1, 200, 300, 400)}, r"box x0=-1 is outside 0\.\.1000 \(pass clip=True"),
        ({"box": (100, 200, 300, 1001)}, r"box y1=1001 is outside 0\.\.1000"),
        ({"box": (100, math.nan, 300, 400)}, "box y0=nan is not a finite number"),
        ({"box": (100, 200, math.inf, 400)}, "box x1=inf is not a finite number"),
        ({"box": (100.5, 200, 300, 400)}, r"box x0=100\.5 is not an integer"),
        ({"box": (300, 200, 100, 400)}, r"box x1=100 is not right of x0=300 \(order is x0, y0, x1, y1.*yxyx"),
        ({"box": (100, 400, 300, 200)}, "box y1=200 is not below y0=400"),
        ({"box": (100, 200, 100, 400)}, "box x1=100 is not right of x0=100"),
        ({"box": (100, 200, 300, 200)}, "box y1=200 is not below y0=200"),
        ({"box": (True, 200, 300, 400)}, "box x0=True is not a number"),
        ({"box": ("100", 200, 300, 400)}, "box x0='100' is not a number"),
        ({"box": (None, 200, 300, 400)}, "box x0=None is not a number"),
        ({"box": (100, 200, 300)}, r"box=\(100, 200, 300\) is not four numbers"),
        ({"box": "1234"}, "box='1234' is not four numbers"),
        ({"box": None}, "box=None is not four numbers"),
        ({"type": "Artifact"}, "type='Artifact' is neither 'artifact' nor 'misalignment'"),
        ({"type": None}, "type=None is neither"),
        ({"reason": None}, "reason=None is not text"),
        ({"importance": 0}, r"importance=0 is outside 1\.\.100"),
        ({"importance": 101}, r"importance=101 is outside 1\.\.100"),
        ({"importance": 55.5}, r"importance=55\.5 is not an integer"),
        ({"importance": math.nan}, "importance=nan is not a finite number"),
        ({"importance": True}, "importance=True is not a number"),
        ({"importance": "55"}, "importance='55' is not a number"),
        ({"subtype": "wrong_style"}, "subtype='wrong_style' is none of the artifact subtypes"),
        ({"confidence": 1.01}, r"confidence=1\.01 is outside 0\.\.1"),
        ({"confidence": math.nan}, r"confidence=nan is outside 0\.\.1"),
        ({"confidence": "high"}, "confidence='high' is not a number"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Defect(**{**FINE, **fields})


@pytest.mark.parametrize("box", [(0, 0, 1000, 1000), (999, 0, 1000, 1), [100, 200, 300, 400], (1.0, 2.0, 3.0, 4.0)])
def test_good_boxes_become_integers(box):
    made = Defect(box, "artifact").box
    assert made == tuple(box)
    assert all(type(value) is int for value in made)


def test_numpy_numbers_are_numbers():
    made = Defect(np.array([1, 2, 3, 4]), "artifact", importance=np.int64(7), confidence=np.float32(0.5))
    assert (made.box, made.importance, made.confidence) == ((1, 2, 3, 4), 7, 0.5)
    assert json.dumps(made.to_json())


@pytest.mark.parametrize(
    ("fields", "box", "importance", "mended"),
    [
        ({}, (100, 200, 300, 400), 55, ()),
        ({"box": (-5, 200, 300, 1400)}, (0, 200, 300, 1000), 55, ("box x0 -5 -> 0", "box y1 1400 -> 1000")),
        ({"box": (99.5, 200.4, 300, 400)}, (100, 200, 300, 400), 55, ("box x0 99.5 -> 100", "box y0 200.4 -> 200")),
        ({"box": (300, 200, 100, 400)}, (100, 200, 300, 400), 55, ("box x0, x1 300, 100 swapped",)),
        ({"box": (100, 400, 300, 200)}, (100, 200, 300, 400), 55, ("box y0, y1 400, 200 swapped",)),
        ({"importance": 140}, (100, 200, 300, 400), 100, ("importance 140 -> 100",)),
        ({"importance": 0}, (100, 200, 300, 400), 1, ("importance 0 -> 1",)),
    ],
)
def test_clip_mends_and_reports(fields, box, importance, mended):
    made = Defect(**{**FINE, **fields}, clip=True)
    assert (made.box, made.importance, made.mended) == (box, importance, mended)
    assert made == Defect(**{**FINE, "box": box, "importance": importance})


@pytest.mark.parametrize(
    "fields",
    [
        {"box": (100, math.nan, 300, 400)},
        {"box": (1200, 200, 1300, 400)},
        {"box": (100, 200, 100.2, 400)},
        {"box": ("1", 2, 3, 4)},
        {"importance": math.inf},
        {"type": "flaw"},
    ],
)
def test_clip_does_not_invent(fields):
    with pytest.raises(ValueError, match=r"(x1|y0|x0|importance|type)="):
        Defect(**{**FINE, **fields}, clip=True)


@pytest.mark.parametrize(
    ("order", "box"), [("xyxy", (64, 16, 128, 32)), ("yxyx", (16, 64, 32, 128)), ("xywh", (64, 16, 64, 16))]
)
def test_from_pixels_in_three_orders(order, box):
    made = Defect.from_pixels(box, 128, 64, order=order, type="artifact")
    assert made.box == (500, 250, 1000, 500)
    assert made.to_pixels(128, 64) == (64, 16, 128, 32)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 0.1, 4096), (0, 0, 1, 1000)),
        ((4095.9, 0, 4096, 0.1), (999, 0, 1000, 1)),
        ((1000, 1000, 1001, 1001), (244, 244, 245, 245)),
    ],
)
def test_thin_boxes_in_pixels_keep_a_grid_unit(box, expected):
    assert Defect.from_pixels(box, 4096, 4096, type="artifact").box == expected


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 129, 64), r"box x1=1008 is outside"),
        ((0, 0, math.nan, 64), "not a finite number"),
        ((64, 0, 32, 64), "not right of"),
        ((1, 2, 3), "not four numbers"),
    ],
)
def test_from_pixels_refuses(box, message):
    with pytest.raises(ValueError, match=message):
        Defect.from_pixels(box, 128, 64, type="artifact")


def test_from_pixels_clips_when_told():
    assert Defect.from_pixels((0, 0, 129, 64), 128, 64, type="artifact", clip=True).box == (0, 0, 1000, 1000)


@pytest.mark.parametrize(
    ("importance", "tier"),
    [
        *((100, "critical"), (90, "critical"), (89, "major"), (70, "major"), (69, "moderate"), (40, "moderate")),
        *((39, "minor"), (15, "minor"), (14, "negligible"), (1, "negligible"), (None, None)),
    ],
)
def test_tiers(importance, tier):
    assert Defect(**{**FINE, "importance": importance}).tier == tier


def test_tiers_cover_every_importance_once():
    for importance in range(1, 101):
        assert [name for name, (low, high) in TIERS.items() if low <= importance <= high] == [tier_of(importance)]


def test_subtypes_belong_to_their_type():
    for kind in TYPES:
        for subtype in SUBTYPES[kind]:
            assert Defect((0, 0, 1, 1), kind, subtype=subtype).subtype == subtype


def test_equality_is_over_the_four_fields():
    one = Defect(**FINE)
    assert one == Defect(**FINE, subtype="garbled_text", confidence=0.3)
    assert hash(one) == hash(Defect(**FINE, confidence=0.3))
    for name, value in (
        ("box", (100, 200, 300, 401)),
        ("type", "misalignment"),
        ("reason", "five fingers"),
        ("importance", None),
    ):
        assert one != Defect(**{**FINE, name: value})


def test_defects_and_sets_cannot_be_changed():
    one = Defect(**FINE)
    many = DefectSet([one])
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.importance = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        many.defects = ()
    with pytest.raises(TypeError):
        many[0] = one


def test_a_set_does_not_follow_the_list_it_was_made_of():
    source = [Defect(**FINE)]
    made = DefectSet(source)
    source.clear()
    assert len(made) == 1


def test_a_set_is_a_sequence():
    a, b = Defect(**FINE), Defect((1, 2, 3, 4), "misalignment", importance=90)
    both = DefectSet([a, b], caption="a hand")
    assert (len(both), both[0], both[-1], list(both), both[:1]) == (2, a, b, [a, b], (a,))
    assert (both.artifacts, both.misalignments) == ((a,), (b,))
    assert both.of_type("misalignment") == both.of_type(DefectType.MISALIGNMENT) == (b,)
    assert both.by_importance() == (b, a)
    assert a in both


def test_an_unweighed_defect_comes_first_by_importance():
    unweighed, weighed = Defect((1, 2, 3, 4), "artifact"), Defect(**FINE)
    assert DefectSet([weighed, unweighed]).by_importance() == (unweighed, weighed)


def test_equality_of_sets_is_over_the_defects_in_order():
    a, b = Defect(**FINE), Defect((1, 2, 3, 4), "misalignment")
    assert DefectSet([a, b]) == DefectSet([a, b], caption="other", raw="text", info={"seconds": 1})
    assert hash(DefectSet([a, b])) == hash(DefectSet((a, b)))
    assert DefectSet([a, b]) != DefectSet([b, a])
    assert DefectSet() != DefectSet([a])
    assert DefectSet([a]) != [a]


def test_a_set_holds_defects_only():
    with pytest.raises(ValueError, match=r"defect 1: .* is not a Defect"):
        DefectSet([Defect(**FINE), dict(FINE)])


def test_of():
    a = Defect(**FINE)
    made = DefectSet([a])
    assert DefectSet.of(made) is made
    assert DefectSet.of([a]) == DefectSet.of([FINE]) == DefectSet.of(iter([dict(FINE, extra=1)])) == made
    assert DefectSet.of([]) == DefectSet()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "expected a list of defects, got 'text'"),
        ({"defects": []}, "expected a list of defects"),
        ([FINE, {**FINE, "box": (5, 5, 2, 9)}], "defect 1: box x1=2 is not right of x0=5"),
        ([{"box": (1, 2, 3, 4)}], "defect 0: type is missing"),
        ([{"type": "artifact"}], "defect 0: box is missing"),
        ([3], "defect 0: 3 is not a Defect"),
    ],
)
def test_of_names_what_is_wrong(value, message):
    with pytest.raises(ValueError, match=message):
        DefectSet.of(value)


@pytest.mark.parametrize("value", [[], {}, {"defects": None}, {"caption": "a"}, "[]"])
def test_from_json_wants_a_set(value):
    with pytest.raises(ValueError, match='an object with a list "defects"'):
        DefectSet.from_json(value)


def test_json_of_a_defect():
    assert Defect(**FINE, subtype="distorted_anatomy", confidence=0.5).to_json() == {
        "box": [100, 200, 300, 400],
        "type": "artifact",
        "reason": "six fingers",
        "importance": 55,
        "tier": "moderate",
        "subtype": "distorted_anatomy",
        "confidence": 0.5,
    }


@given(st.lists(defect, max_size=4), st.none() | st.text(max_size=9), st.none() | st.text(max_size=9))
def test_json_round_trip(defects, caption, parse_error):
    made = DefectSet(defects, caption=caption, reasoning="think", parse_error=parse_error, raw="raw", info={"s": 1})
    for data in (made.to_json(), json.dumps(made.to_json())):
        back = DefectSet.from_json(data)
        assert back == made
        assert [d.confidence for d in back] == [d.confidence for d in made]
        assert (back.caption, back.reasoning, back.parse_error) == (caption, "think", parse_error)
        assert (back.raw, back.info) == ("raw", {"s": 1})


@given(defect, st.integers(1, 9999), st.integers(1, 9999))
def test_pixel_round_trip(one, width, height):
    assert Defect.from_pixels(one.to_pixels(width, height), width, height, type=one.type).box == one.box
