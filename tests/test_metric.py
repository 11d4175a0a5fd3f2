"""evaluate.load("sdg_eval"): the numbers of SDGEval, through every way in."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdg
from sdg import Defect, DefectSet, SDGEval, render_response

ROOT = Path(sdg.__file__).parents[1]
SPACE = ROOT / "spaces" / "sdg_eval"
TRUTH = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
NEAR = [{"box": [0, 0, 500, 450], "type": "artifact", "reason": "a second head", "importance": 60}]
UNREAD = DefectSet((), parse_error="no JSON", raw="no idea")
BARE = [{"box": [10, 10, 90, 90], "type": "misalignment", "reason": "", "importance": None}]


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return evaluate.load(str(SPACE), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        both_nan = isinstance(a[key], float) and math.isnan(a[key]) and math.isnan(b[key])
        assert both_nan or a[key] == b[key], key


CASES = {
    "one image": ([NEAR], [TRUTH]),
    "clean": ([[]], [[]]),
    "empty against one": ([[], []], [TRUTH, []]),
    "one against empty": ([TRUTH, BARE], [[], []]),
    "no importance": ([BARE, NEAR], [BARE, TRUTH]),
    "no image": ([], []),
}


@pytest.mark.parametrize(("predictions", "references"), CASES.values(), ids=CASES.keys())
def test_the_numbers_are_those_of_the_library(metric, predictions, references):
    got = metric.compute(predictions=predictions, references=references, embedder=None)
    same(got, SDGEval(embedder=None).compute(predictions=predictions, references=references))


def defects():
    corner = st.integers(0, 990)
    box = st.tuples(corner, corner, st.integers(1, 400), st.integers(1, 400)).map(
        lambda b: (b[0], b[1], min(b[0] + b[2], 1000), min(b[1] + b[3], 1000))
    )
    kinds = st.sampled_from(["artifact", "misalignment"])
    made = st.builds(Defect, box=box, type=kinds, reason=st.sampled_from(["a", "b"]), importance=st.integers(1, 100))
    return st.lists(made, max_size=3)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(defects(), defects()), min_size=1, max_size=4))
def test_any_images_and_both_forms_of_prediction_agree(metric, images):
    predictions, references = [DefectSet(tuple(p)) for p, _ in images], [DefectSet(tuple(r)) for _, r in images]
    expected = SDGEval(embedder=None).compute(predictions=predictions, references=references)
    records = [[d.to_json() for d in answer] for answer in predictions]
    truths = [[d.to_json() for d in truth] for truth in references]
    same(metric.compute(predictions=records, references=truths, embedder=None), expected)
    texts = [render_response(answer) for answer in predictions]
    from_texts = metric.compute(predictions=texts, references=truths, embedder=None)
    assert from_texts["parse_rate"] == 1
    read = SDGEval(embedder=None).compute(predictions=texts, references=references)
    same(from_texts, read)


def test_responses_that_cannot_be_read_lower_the_parse_rate(metric):
    got = metric.compute(predictions=["no", render_response(DefectSet(()))], references=[TRUTH, []], embedder=None)
    assert (got["parse_rate"], got["artifact/box_recall@0.5"]) == (0.5, 0)


@pytest.mark.parametrize("predictions", [[UNREAD, TRUTH], [TRUTH, UNREAD]])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_set_that_could_not_be_read_is_not_a_clean_picture(metric, predictions, one_by_one):
    if one_by_one:
        for prediction in predictions:
            metric.add(prediction=prediction, reference=TRUTH)
        got = metric.compute(embedder=None)
    else:
        got = metric.compute(predictions=predictions, references=[TRUTH, TRUTH], embedder=None)
    assert got["parse_rate"] == 0.5
    same(got, SDGEval(embedder=None).compute(predictions=predictions, references=[TRUTH, TRUTH]))


def test_an_empty_batch_adds_nothing_and_drops_nothing(metric):
    metric.add_batch(predictions=[], references=[])
    metric.add_batch(predictions=[TRUTH], references=[TRUTH])
    assert metric.compute(predictions=[], references=[], embedder=None)["n_images"] == 1


@pytest.mark.parametrize(("first", "second"), [("text", TRUTH), (TRUTH, "text")])
def test_the_two_forms_do_not_mix_when_added_either(metric, first, second):
    metric.add(prediction=first, reference=TRUTH)
    with pytest.raises(ValueError, match="mix response strings and lists"):
        metric.add(prediction=second, reference=TRUTH)
    assert metric.compute(embedder=None)["n_images"] == 1


@pytest.mark.parametrize("batched", [False, True])
def test_images_may_come_one_after_another(metric, batched):
    for prediction, reference in [(NEAR, TRUTH), ([], []), (BARE, [])]:
        if batched:
            metric.add_batch(predictions=[prediction], references=[reference])
        else:
            metric.add(prediction=prediction, reference=reference)
    got = metric.compute(embedder=None, ci=0.9)
    expected = SDGEval(embedder=None, ci=0.9).compute(predictions=[NEAR, [], BARE], references=[TRUTH, [], []])
    same({k: v for k, v in got.items() if not k.endswith("/ci")}, {k: v for k, v in expected.items() if "/ci" not in k})
    assert got["artifact/box_f1@0.5/ci"] == expected["artifact/box_f1@0.5/ci"]


@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([TRUTH], [TRUTH, []], "predictions has 1 entries, references have 2"),
        ([[{"bbox": [0, 0, 1, 1]}]], [[]], r"predictions\[0\], defect 0: box is missing; .* this one has bbox"),
        ([[{"box": [0, 0, 1, 1]}]], [[]], r"predictions\[0\], defect 0: type is missing"),
        ([[{"box": "abcd", "type": "artifact"}]], [[]], "must be numbers"),
        ([[{"box": [0, 0, 1.5, 1], "type": "artifact"}]], [[]], r"box x1=1.5"),
        ([[{"box": [0, 0, float("nan"), 1], "type": "artifact"}]], [[]], "x1"),
        ([[{"box": [0, 0, 1, 1], "type": "fault"}]], [[]], "type='fault'"),
        ([["a hand"]], [[]], "'a hand' is not a record"),
        ([[{"box": list("0099"), "type": "artifact"}]], [[]], "must be numbers"),
        ([[{"box": [0, 0, 9, 9], "type": "artifact", "importance": "80"}]], [[]], "must be numbers"),
        ([[{"box": [0, 0, 9, 9], "type": "artifact", "importance": True}]], [[]], "must be numbers"),
        ([[]], [UNREAD], r"references\[0\] could not be read \(no JSON\)"),
        (["text", TRUTH], [[], []], "mix response strings and lists"),
        ([TRUTH], ["text"], r"references\[0\] is text"),
        ([7], [[]], r"predictions\[0\]=7 is neither"),
    ],
)
def test_bad_input_is_named(metric, predictions, references, words):
    with pytest.raises(ValueError, match=words):
        metric.compute(predictions=predictions, references=references, embedder=None)
    # A refused call leaves nothing behind.
    assert metric.compute(predictions=[TRUTH], references=[TRUTH], embedder=None)["n_images"] == 1


def test_one_side_alone_is_refused(metric):
    with pytest.raises(ValueError, match="predictions and references are needed"):
        metric.compute(predictions=[TRUTH])


def test_the_description_and_the_card_are_there(metric):
    assert "box_f1" in metric.description
    assert metric.inputs_description
    assert len(metric.features) == 2
    assert (SPACE / "README.md").read_text(encoding="utf-8").startswith("---\ntitle: SDG-Eval")


def test_the_cards_example_runs():
    code = (SPACE / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    code = code.replace('load("sdg_eval")', f"load({str(SPACE)!r})")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == 1


def test_the_space_builds_its_page():
    run = subprocess.run(
        [sys.executable, "-c", "import app, json; print(json.dumps(app.demo.title))"],
        capture_output=True,
        text=True,
        cwd=SPACE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == "SDG-Eval"
