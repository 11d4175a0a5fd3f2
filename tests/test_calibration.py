"""Confidence and world: features, fitting, files, curves, agreement, and how the detector applies them."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_auc_score
from standins import picture, save_checkpoint
from sure_engine import SureEngine, features_of, scene

from sdg.calibration import (
    FEATURES,
    Calibration,
    Evidence,
    Judged,
    Trust,
    World,
    agreement,
    at_least,
    auroc,
    features,
    is_right,
    mirrored,
    mirrored_caption,
    outside_sentence,
)
from sdg.calibration.fitting import Answers
from sdg.calibration.plot import plot_confidence
from sdg.defects import Defect, DefectSet
from sdg.detector import SDGDetector
from sdg.detector.looks import SeveralLooks
from sdg.detector.observe import look_at, observe
from sdg.engines.base import CheckpointError, Generation
from sdg.response import parse_response, render_response

PROMPT = "caption: {caption}"
HAND = Defect((100, 200, 300, 400), "artifact", "a hand", 55)
CAR = Defect((0, 0, 500, 500), "misalignment", "a blue car", 80)


def detector(**options):
    return SDGDetector(SureEngine(**options), PROMPT)


@pytest.fixture(scope="module")
def answers():
    return observe(detector(), [scene(i) for i in range(240)])


@pytest.fixture(scope="module")
def calibration(answers):
    return answers.calibration({"data": "scenes"})


# --- features ---------------------------------------------------------------------------------------------------------


def evidence_by_character(text, levels):
    """One token a character; characters of each piece of text in ``levels`` have its log-probability, others -0.01."""
    logprobs = [-0.01] * len(text)
    for piece, level in levels.items():
        start = text.rindex(piece)
        logprobs[start : start + len(piece)] = [level] * len(piece)
    return Evidence(tuple(logprobs), tuple(range(1, len(text) + 1)))


def test_features_are_the_log_probabilities_of_the_parts():
    found = DefectSet((HAND, CAR), reasoning='I see "label": "artifact" in [100, 200, 300, 400]')
    text = render_response(found)
    levels = {"200": -1.0, "a hand": -2.0, "misalignment": -0.5, '{"box_2d": [0': -0.25}
    table = features(replace(parse_response(text), raw=text), evidence_by_character(text, levels))
    hand, car = (dict(zip(FEATURES, row, strict=True)) for row in table)
    three = 3 * -0.01
    assert hand["box"] == pytest.approx((3 * three + 3 * -1.0) / 4)
    assert hand["box_least"] == pytest.approx(-3.0)
    assert hand["description_least"] == -2.0
    assert hand["label"] == pytest.approx(-0.01 * len('"artifact"'))
    assert car["label"] == pytest.approx(-0.5 * len("misalignment") - 0.02)
    assert car["opening"] < -0.25 * 9 < hand["opening"]
    assert hand["reasoning"] == car["reasoning"] == pytest.approx(-0.01)
    assert (hand["importance"], hand["count"], hand["artifact"], car["artifact"]) == (55, 2, 1, 0)
    assert car["log_area"] == pytest.approx(math.log(0.25))


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_a_coordinate_in_pieces_is_worth_the_sum_of_them(digits):
    text = '<answer>[{"box_2d": [100, 200, 300, 400], "label": "artifact", "description": "x"}]</answer>'
    cuts = sorted({*range(0, text.index("100"), 5), *range(text.index("100"), len(text), digits), len(text)} - {0})
    evidence = Evidence((-0.1,) * len(cuts), tuple(cuts))
    (row,) = features(parse_response(text), evidence)
    start = text.index("300")
    touching = sum(end > start and before < start + 3 for before, end in zip([0, *cuts], cuts, strict=False))
    assert row[FEATURES.index("box_least")] <= -0.1 * touching + 1e-9


@pytest.mark.parametrize(
    "evidence", [None, Evidence(), Evidence((), ()), Evidence((-0.1,), None), Evidence(None, None, (1.0,))]
)
def test_without_log_probabilities_the_written_features_are_unknown(evidence):
    text = render_response(DefectSet((HAND,)))
    table = features(parse_response(text), evidence)
    assert np.isnan(table[0, :8]).all()
    assert not np.isnan(table[0, 8:]).any()


def test_a_cut_off_answer_has_the_features_of_its_whole_objects():
    text = render_response(DefectSet((HAND, CAR)))
    cut = text[: text.index("blue")]
    found = parse_response(cut)
    table = features(found, evidence_by_character(cut, {}))
    assert len(found) == len(table) == 1
    assert not np.isnan(table[:, :6]).any()


# --- calibration ------------------------------------------------------------------------------------------------------


def test_right_is_matched_with_its_type_at_half_iou():
    near, wrong_type = replace(HAND, box=(100, 200, 300, 390)), replace(HAND, type="misalignment")
    far = replace(HAND, box=(250, 200, 450, 400))
    assert is_right(DefectSet((near,)), DefectSet((HAND,))).tolist() == [True]
    assert is_right(DefectSet((far, wrong_type)), DefectSet((HAND,))).tolist() == [False, False]
    assert is_right(DefectSet((near, HAND)), DefectSet((HAND,))).tolist() == [False, True]
    assert is_right(DefectSet(), DefectSet((HAND,))).tolist() == []


def test_the_less_sure_are_less_confident_and_the_shares_hold(answers, calibration):
    fresh = observe(detector(), [scene(i) for i in range(300, 540)])
    judged = fresh.judged(calibration)
    assert judged.auroc() > 0.9
    assert judged.ece() < 0.08
    assert 0.55 < judged.right.mean() < 0.9
    assert calibration.fitted_on["defects"] == sum(map(len, answers.found))
    assert calibration.fitted_on["data"] == "scenes"


def test_cross_fitting_judges_each_picture_by_the_others(answers):
    judged = answers.cross_judged(folds=4)
    inside, rest = answers.take(range(1, 240, 4)), answers.take([i for i in range(240) if i % 4 != 1])
    expected = inside.judged(rest.calibration())
    here = np.isin(judged.image, range(1, 240, 4))
    np.testing.assert_allclose(judged.confidence[here], expected.confidence)


def test_a_defect_of_which_nothing_is_known_has_no_confidence(calibration):
    table = np.full((2, len(FEATURES)), np.nan)
    table[:, 8:] = 1
    table[1, 0] = -0.5
    none, some = calibration.confidence(table)
    assert none is None
    assert 0 < some < 1
    assert calibration.confidence(np.zeros((0, len(FEATURES)))) == []


def test_a_calibration_survives_its_file(calibration, tmp_path):
    assert Calibration.load(calibration.save(tmp_path)) == calibration
    assert (tmp_path / "calibration.json").stat().st_size < 4000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("weights"), "'weights' is missing"),
        (lambda d: d.update(format=9), "another version of sdg"),
        (lambda d: d.update(features=["smell", *d["features"][1:]]), "features smell are unknown"),
        (lambda d: d["weights"].pop(), "weights=.* is not one finite number a feature"),
        (lambda d: d.update(scale=[0.0] * len(d["scale"])), "must be above 0"),
        (lambda d: d.update(bias="high"), "could not convert"),
    ],
)
def test_a_damaged_calibration_is_refused_by_name(calibration, tmp_path, change, message):
    path = calibration.save(tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"calibration.json is no calibration \(.*{message}.*sdg calibrate"):
        Calibration.load(path)


def test_too_few_wrong_ones_are_refused():
    with pytest.raises(ValueError, match=r"47 of 50 predicted defects are right.*at least 10 right and 10 wrong"):
        Calibration.fit(np.zeros((50, len(FEATURES))), [True] * 47 + [False] * 3)


# --- curves -----------------------------------------------------------------------------------------------------------


def judged_of(confidence, right, image=None, true=None, kind=None):
    n = len(confidence)
    return Judged(
        np.array(confidence, dtype=float),
        np.array(right, dtype=bool),
        np.arange(n) if image is None else np.array(image),
        np.zeros(n, dtype=int) if kind is None else np.array(kind),
        np.ones((n, 2), dtype=int) if true is None else np.array(true),
    )


scored = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.booleans()), min_size=2, max_size=40)


@given(scored)
@settings(max_examples=50)
def test_auroc_and_precision_recall_agree_with_scikit_learn(rows):
    confidence, right = map(np.array, zip(*rows, strict=True))
    if 0 < right.sum() < len(right):
        judged = judged_of(confidence, right, true=[[1, 0]] * int(right.sum()) + [[0, 0]] * int((~right).sum()))
        assert judged.auroc() == pytest.approx(roc_auc_score(right, confidence))
        precision, recall, threshold = precision_recall_curve(right, confidence)
        curve = judged.precision_recall()
        np.testing.assert_allclose(curve.threshold[::-1], threshold)
        np.testing.assert_allclose(curve.precision[::-1], precision[:-1])
        np.testing.assert_allclose(curve.recall[::-1], recall[:-1])


def test_ece_is_the_mean_gap_of_bins_of_equal_size():
    judged = judged_of([0.2] * 4 + [0.8] * 4, [1, 0, 0, 0, 1, 1, 1, 1])
    assert judged.ece(bins=2) == pytest.approx((0.05 + 0.2) / 2)
    assert judged.brier() == pytest.approx((0.64 + 3 * 0.04 + 4 * 0.04) / 8)
    assert judged.reliability(2).size.tolist() == [4, 4]


def test_false_alarms_are_clean_pictures_with_a_defect_at_the_threshold():
    judged = judged_of([0.9, 0.4, 0.6], [0, 0, 1], image=[0, 0, 2], true=[[0, 0], [0, 0], [1, 0]])
    assert judged.false_alarms([0.0, 0.5, 0.9, 0.95]).tolist() == [0.5, 0.5, 0.5, 0.0]
    row = judged.table([0.5])[0]
    assert row == pytest.approx(
        {"threshold": 0.5, "kept": 2, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "false_alarm": 0.5}
    )


def test_what_is_undefined_is_nan():
    empty = Judged.of([], [])
    summary = empty.summary()
    assert math.isnan(summary["ece"])
    assert math.isnan(summary["auroc"])
    assert all(math.isnan(row["precision"]) for row in summary["thresholds"])
    assert math.isnan(judged_of([0.5], [True], true=[[1, 0]]).false_alarms([0.5])[0])
    with pytest.raises(ValueError, match="1 predictions but 0 references"):
        Judged.of([DefectSet()], [])


def test_the_figure_has_its_three_panels(answers, tmp_path):
    figure = plot_confidence(answers.cross_judged(), "scenes")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("Reliability (ECE 0.")
    assert titles[1:] == ["Precision and recall by threshold", "False alarms"]
    assert max(figure.axes[2].lines[0].get_ydata()) == pytest.approx(1.0)
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_without_matplotlib_it_says_what_to_install(answers, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sdg-t2i\[plot\]"'):
        plot_confidence(answers.cross_judged())


# --- world ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    return World.fit(rng.normal(size=(400, 6)) @ mix, rng.normal(size=(200, 6)) @ mix, 0.05, "noise"), mix


def test_the_score_is_about_one_inside_and_the_threshold_keeps_its_rate(world):
    world, mix = world
    fresh = world.score(np.random.default_rng(1).normal(size=(4000, 6)) @ mix)
    assert np.mean(fresh**2) == pytest.approx(1, abs=0.1)
    assert 0.01 < np.mean(fresh > world.threshold) < 0.1
    assert world.score(50 * np.ones(6))[0] > world.threshold


def test_the_threshold_lets_no_more_held_out_pictures_out_than_it_says():
    rng = np.random.default_rng(2)
    seen, held_out = rng.normal(size=(50, 3)), rng.normal(size=(100, 3))
    world = World.fit(seen, held_out, 0.05)
    assert np.sum(world.score(held_out) > world.threshold) <= 5


def test_a_world_survives_its_file_and_the_weights_file_stays_alone(world, tmp_path):
    world, _ = world
    again = World.load(world.save(tmp_path))
    assert (again.threshold, again.false_alarms, again.fitted_on) == (world.threshold, 0.05, "noise")
    point = np.arange(6.0)
    assert again.score(point) == world.score(point)
    assert [path.name for path in tmp_path.iterdir()] == ["world.safetensors"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, t: World.fit(np.ones((5, 2)), np.ones((9, 2)), 0.05), "needs 20 held out"),
        (lambda w, t: World.fit(np.ones((5, 2)), np.ones((9, 2)), 0), "not a share"),
        (lambda w, t: w.score(np.ones(5)), "5 features a picture, but world.safetensors has 6"),
        (lambda w, t: World.load(t), "is no world .*sdg calibrate"),
    ],
)
def test_what_makes_no_world_is_refused(world, tmp_path, call, message):
    (tmp_path / "world.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=message):
        call(world[0], tmp_path / "world.safetensors")


def test_a_person_is_told_in_a_sentence(world):
    world, _ = world
    inside, outside = (DefectSet(info={"out_of_world": world.judge(x * np.ones(6))}) for x in (0.0, 50.0))
    assert outside_sentence(inside) is None
    assert outside_sentence(DefectSet()) is None
    assert "unlike those that the model was trained on (distance " in outside_sentence(outside)
    broken = DefectSet(info={"out_of_world": world.judge(np.full(6, np.nan))})
    assert broken.info["out_of_world"]["outside"]
    assert "unlike" in outside_sentence(broken)
    json.dumps(outside.to_json(), allow_nan=False)
    json.dumps(broken.to_json(), allow_nan=False)


# --- the detector -----------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(answers, calibration):
    world = World.fit(answers.pictures, answers.pictures, 0.01)
    return SDGDetector(SureEngine(), PROMPT, trust=Trust(calibration, world))


def test_defects_get_their_confidence_and_a_threshold_leaves_some_out(trusted):
    images, captions = [scene(i).image for i in range(30)], [scene(i).caption for i in range(30)]
    found = trusted(images, captions)
    assert all(0 < d.confidence < 1 for s in found for d in s)
    assert all(s.info["calibrated"] for s in found)
    kept = trusted(images, captions, min_confidence=0.5)
    assert [d for s in kept for d in s] == [d for s in found for d in s if d.confidence >= 0.5]
    dropped = sum(s.info.get("dropped_below_confidence", 0) for s in kept)
    assert dropped == sum(map(len, found)) - sum(map(len, kept)) > 0
    trusted.min_confidence = 0.5
    assert trusted(images, captions) == kept
    assert trusted(images, captions, min_confidence=0) == found
    assert list(trusted.iter(images, captions)) == kept


def test_a_picture_from_elsewhere_is_told(trusted):
    inside = trusted(scene(3).image, "a").info["out_of_world"]
    outside = trusted(Image.new("RGB", (16, 16), (3, 0, 255)), "a").info["out_of_world"]
    assert (inside["outside"], outside["outside"]) == (False, True)
    assert outside["score"] > outside["threshold"] > inside["score"]


def test_without_a_calibration_there_is_no_confidence_and_the_result_says_so():
    plain = detector()
    found = plain(scene(1).image, "a")
    assert (found[0].confidence, found.info["calibrated"]) == (None, False)
    with pytest.raises(
        ValueError, match=r"min_confidence=0.5 needs confidences, and sure has no calibration.*sdg calib"
    ):
        plain(scene(1).image, "a", min_confidence=0.5)
    for bad in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"outside 0\.\.1"):
            plain(scene(1).image, "a", min_confidence=bad)


def test_an_engine_that_knows_nothing_gives_no_confidence(calibration):
    silent = SDGDetector(SureEngine(evidence=False), PROMPT, trust=Trust(calibration))
    found = silent(scene(1).image, "a", min_confidence=0.99)
    assert [d.confidence for d in found] == [None]
    assert "out_of_world" not in found.info
    with pytest.raises(ValueError, match="does not say how sure"):
        observe(silent, [scene(1)])


def test_at_least_keeps_what_has_no_confidence():
    found = DefectSet((replace(HAND, confidence=0.2), replace(CAR, confidence=None)))
    assert list(at_least(found, 0.5)) == [CAR]
    assert at_least(found, 0.2) is found


def test_a_checkpoint_carries_them_along(calibration, tmp_path):
    folder = save_checkpoint(tmp_path / "plain")
    loaded = SDGDetector.from_pretrained(folder, dtype="float32", prompt=PROMPT, max_new_tokens=4)
    assert loaded.trust == Trust()
    seen = look_at(loaded, [picture(i) for i in range(4)])
    loaded.trust = Trust(calibration, World.fit(seen, seen, 0.3))
    loaded.save_pretrained(tmp_path / "saved")
    again = SDGDetector.from_pretrained(tmp_path / "saved", dtype="float32", min_confidence=0.4)
    assert again.trust.calibration == calibration
    assert again.min_confidence == 0.4
    verdict = again(picture(0), "a red car").info["out_of_world"]
    assert verdict["score"] == pytest.approx(loaded.trust.world.score(seen[0])[0], abs=0.01)
    (tmp_path / "saved" / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match="is no calibration"):
        SDGDetector.from_pretrained(tmp_path / "saved")


# --- several looks ----------------------------------------------------------------------------------------------------


def test_agreement_is_the_share_of_looks():
    near = replace(HAND, box=(100, 200, 300, 390), reason="other words")
    looks = [DefectSet((near, CAR)), DefectSet((near,)), DefectSet(parse_error="unreadable")]
    assert agreement(DefectSet((HAND, CAR)), looks) == [0.75, 0.5]
    assert agreement(DefectSet(), looks) == []
    assert agreement(DefectSet((HAND,)), []) == [1.0]


def test_a_mirror_turns_boxes_and_words():
    found = DefectSet((replace(HAND, reason="the cup is left of the car"),), caption="x")
    turned = mirrored(found)
    assert turned[0].box == (700, 200, 900, 400)
    assert turned[0].reason == "the cup is right of the car"
    assert mirrored(turned) == found
    assert mirrored_caption("LEFT, Right, leftmost; bright and leftover stay") == (
        "RIGHT, Left, rightmost; bright and leftover stay"
    )


def test_inventions_come_back_less_often():
    records = [scene(i) for i in range(60)]
    looks = SeveralLooks(detector(), samples=6, temperature=1.0, confidence="agreement")
    found = looks([r.image for r in records], [r.caption for r in records])
    judged = Judged.of(found, [r.defects for r in records])
    assert judged.auroc() > 0.95
    assert found[0].info["looks"] == 7
    strict = replace(looks, min_agreement=0.9)([r.image for r in records], [r.caption for r in records])
    assert sum(map(len, strict)) < sum(map(len, found))
    assert all(min(s.info["agreement"], default=1) >= 0.9 for s in strict)
    assert sum(s.info.get("dropped_below_agreement", 0) for s in strict) == sum(map(len, found)) - sum(map(len, strict))


def test_confidence_and_agreement_can_share_the_word(calibration):
    trusted = SDGDetector(SureEngine(), PROMPT, trust=Trust(calibration))
    image, caption = scene(3).image, scene(3).caption
    alone = trusted(image, caption)
    for name, expected in (("agreement", None), ("mean", 0.5), ("calibrated", 0)):
        looks = SeveralLooks(trusted, samples=2, confidence=name)
        (found,) = looks([image], [caption])
        share, sure = found.info["agreement"][0], alone[0].confidence
        want = share if expected is None else expected * share + (1 - expected) * sure
        assert found[0].confidence == pytest.approx(want, abs=1e-3)


def test_the_mirrored_look_is_told_of_the_picture_itself():
    asked = []

    class Both:
        name = "both"

        def generate(self, images, prompts):
            asked.extend(zip((image.getpixel((0, 0)) for image in images), prompts, strict=True))
            texts = [
                render_response(DefectSet((HAND if "left" in p else mirrored(DefectSet((HAND,)))[0],))) for p in prompts
            ]
            return [Generation(text, 1, 1, 0.1, True) for text in texts]

    image = Image.new("RGB", (16, 16), "white")
    image.putpixel((15, 0), (0, 0, 0))
    (found,) = SeveralLooks(SDGDetector(Both(), PROMPT), samples=0, mirror=True)([image], ["a cup on the left"])
    assert [prompt for _, prompt in asked] == ["caption: a cup on the left", "caption: a cup on the right"]
    assert [pixel for pixel, _ in asked] == [(255, 255, 255), (0, 0, 0)]
    assert found.info["agreement"] == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "leave one look"),
        ({"temperature": 0}, "must be above 0"),
        ({"min_agreement": 2}, "outside 0..1"),
        ({"confidence": "hope"}, "neither 'agreement'"),
    ],
)
def test_looks_that_show_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SeveralLooks(detector(), **options)


def test_drawn_looks_need_a_local_checkpoint():
    class Far:
        name = "far"

    with pytest.raises(ValueError, match="samples=4 needs a local checkpoint; far is none"):
        SeveralLooks(SDGDetector(Far()))
    with pytest.raises(ValueError, match="far is not in this process"):
        look_at(SDGDetector(Far()), [])


def test_pictures_are_looked_at_in_batches():
    images = [scene(i).image for i in range(5)]
    assert look_at(detector(), images, batch_size=2) == [features_of(image) for image in images]


def test_auroc_counts_ties_by_half():
    assert auroc(np.array([1.0]), np.array([1.0])) == 0.5
    assert math.isnan(auroc(np.array([]), np.array([1.0])))


def test_answers_can_be_taken_apart(answers):
    assert isinstance(answers.take([0, 2]), Answers)
    assert len(answers.take([0, 2])) == 2
