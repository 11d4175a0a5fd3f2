"""The detector's reward: the reference's numbers, a slow version of the formulas, and answers that break things."""

import json
import logging
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from defect_cases import answer, items, one, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg import Defect, DefectSet, DetectorReward, rewards
from sdg.embedding import EmbedderNotFound
from sdg.matching import match
from sdg.records import Record, to_dataset

CASES = json.loads((Path(__file__).parent / "data" / "detector_reward.json").read_text())["cases"]
PARTS = ("total", "loc", "desc", "imp")


class Counting:
    """An embedder that notes what it is asked."""

    def __init__(self, vectors=None):
        self.vectors, self.calls = vectors, []

    def __call__(self, texts):
        self.calls.append(list(texts))
        return toy(texts) if self.vectors is None else np.array([self.vectors.get(t, [1.0, 0, 0, 0]) for t in texts])


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c['kind']}" for i, c in enumerate(CASES)])
def test_conformance(case):
    parts = DetectorReward(embedder=Counting(case["embeddings"])).score(case["completion"], case["ground_truth"])
    assert parts.format_ok == case["format_ok"]
    expected = [case[name] for name in ("reward", "loc", "desc", "imp")]
    assert [getattr(parts, name) for name in PARTS] == pytest.approx(expected, abs=1e-5)


WIDE, HALF = (0, 0, 500, 500), (0, 0, 500, 250)


@pytest.mark.parametrize(
    ("predicted", "true", "parts"),
    [
        ([], [], (0.18, 0.3, 0, 0)),
        ([], [one()], (-0.48, -0.8, 0, 0)),
        ([one()], [], (-0.18, -0.3, 0, 0)),
        ([one()], [one()], (1.0, 1, 1, 1)),
        # IoU 1/2, centres 125 apart in a box of diagonal 500 * sqrt(2); importances 25 apart
        ([one(HALF, importance=75)], [one(WIDE)], (0.6 * 0.46875 + 0.25 + 0.15 * 0.5, 0.46875, 1, 0.5)),
        ([one(type="misalignment")], [one()], (-0.6, -1, 0, 0)),
        ([one(), one()], [one()], (0.6 * 0.25 + 0.25 * 0.5 + 0.15 * 0.5, 0.25, 0.5, 0.5)),
        ([one(reason="bb")], [one()], (0.6 + 0.25 * 0.25 + 0.15, 1, 0.25, 1)),  # cosine 0.6
        ([one(reason="cc")], [one()], (0.75, 1, 0, 1)),
        ([one()], [one(reason="")], (0.75, 1, 0, 1)),
        ([one(reason=" ")], [one()], (0.75, 1, 0, 1)),
        ([one()], [one(importance=None)], (0.85, 1, 1, 0)),
    ],
)
def test_parts(predicted, true, parts):
    scored = DetectorReward(embedder=toy).score(answer(*predicted), true)
    assert [getattr(scored, name) for name in PARTS] == pytest.approx(parts)
    assert scored.format_ok
    assert scored.error is None


@pytest.mark.parametrize(
    ("settings", "predicted", "true", "total"),
    [
        ({"loc_weight": 1, "desc_weight": 0, "imp_weight": 0}, [one(HALF)], [one()], 0.46875),
        ({"both_clean": 0.5}, [], [], 0.3),
        ({"missed_all": -0.1}, [], [one()], -0.06),
        ({"invented_all": -0.5}, [one()], [], -0.3),
        ({"unmatched_penalty": 0}, [one(), one()], [one()], 0.6 * 0.5 + 0.25 * 0.5 + 0.15 * 0.5),
        ({"cosine_low": 0.2, "cosine_range": 0.8}, [one(reason="bb")], [one()], 0.6 + 0.25 * 0.5 + 0.15),
        ({"importance_range": 100}, [one(importance=75)], [one()], 0.6 + 0.25 + 0.15 * 0.75),
    ],
)
def test_settings(settings, predicted, true, total):
    assert DetectorReward(embedder=toy, **settings).score(answer(*predicted), true).total == pytest.approx(total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cosine_range": 0}, "cosine_range=0 must be positive"),
        ({"importance_range": -1}, "importance_range=-1 must be positive"),
        ({"cache_size": -1}, "cache_size=-1 must not be negative; 0 keeps nothing"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DetectorReward(embedder=toy, **settings)


@pytest.mark.parametrize(
    ("text", "with_think", "without"),
    [
        ("<think>seen</think><answer>[]</answer>", 0.18, 0.18),
        ("<answer>[]</answer>", -1, 0.18),
        ("seen</think><answer>[]</answer>", -1, 0.18),
        ("[]", -1, -1),
    ],
)
def test_the_think_tag_can_be_waived(text, with_think, without):
    assert DetectorReward(embedder=toy).score(text, []).total == pytest.approx(with_think)
    assert DetectorReward(embedder=toy, require_think=False).score(text, []).total == pytest.approx(without)


DEFECTS = DefectSet([Defect(WIDE, "artifact", "aa", 50), Defect(HALF, "misalignment", "bb", 9, "wrong_relation")])


@pytest.mark.parametrize(
    "form",
    [
        lambda d: d,
        lambda d: list(d),
        lambda d: [x.to_json() for x in d],
        lambda d: d.to_json(),
        lambda d: json.dumps(d.to_json()),
        lambda d: json.dumps([x.to_json() for x in d]),
    ],
    ids=["set", "list of defects", "dictionaries", "set as a dictionary", "JSON of a set", "JSON of a list"],
)
def test_forms_of_references(form):
    text = answer(*[x.to_json() for x in DEFECTS])
    assert DetectorReward(embedder=toy)([text], defects=[form(DEFECTS)]) == pytest.approx([1.0])


def test_a_data_set_of_records(tmp_path):
    from PIL import Image

    records = [Record(Image.new("RGB", (8, 8)), "a", DEFECTS, kinds=("smear", "wrong_relation")), None]
    records[1] = Record(Image.new("RGB", (8, 8)), "b", DefectSet([Defect(WIDE, "artifact")]))
    columns = to_dataset(records).select_columns(["id", "defects", "caption"])[:]
    text = answer(*[x.to_json() for x in DEFECTS])
    rewards = DetectorReward(embedder=toy)([text, text], **columns)
    assert rewards == pytest.approx([1.0, 0.6 * 0.25])


@pytest.mark.parametrize(
    "chat",
    [
        [{"role": "assistant", "content": answer(one())}],
        [{"role": "user", "content": "look"}, {"role": "assistant", "content": answer(one())}],
        [{"role": "assistant", "content": [{"type": "text", "text": answer(one())}]}],
        {"role": "assistant", "content": answer(one())},
    ],
)
def test_chat_completions(chat):
    assert DetectorReward(embedder=toy)([chat], defects=[[one()]]) == [1.0]


HALF_A_PAIR = "<think></think><answer>" + json.dumps(
    [{"box_2d": WIDE, "label": "artifact", "description": "\ud800", "importance": 50}]
)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "no tags at all",
        "<think>" * 3000,
        "<think></think><answer>" + "[" * 100_000 + "</answer>",
        "<think></think><answer>[1, 2]</answer>",
        '<think></think><answer>{"box_2d": [0, 0, 1, 1]}</answer>',
        '<think></think><answer>[{"box_2d": [0, 0, 1e400, 1], "label": "artifact", "description": "a"}]</answer>',
        answer(one((5, 5, 5, 9))),
        answer(one((0, 0, 1001, 5))),
        answer(one(importance=None)),
        answer(one())[:-3],
        None,
        [],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": [7]}],
        7,
        b"<think></think><answer>[]</answer>",
    ],
)
def test_a_broken_answer_scores_the_penalty_and_spoils_no_other(completion):
    reward = DetectorReward(embedder=toy, invalid=-1)
    assert reward([completion, answer(one())], defects=[[one()], [one()]]) == [-1.0, 1.0]
    parts = reward.score(completion, [one()])
    assert (parts.format_ok, parts.loc, parts.desc, parts.imp) == (False, -1, 0, 0)
    assert parts.error


def test_half_a_surrogate_pair_reaches_the_embedder_as_text():
    texts = Counting({})
    assert DetectorReward(embedder=texts).score(HALF_A_PAIR + "</answer>", [one()]).format_ok
    assert [t.encode() for call in texts.calls for t in call]


def test_a_reason_that_the_embedder_cannot_take_spoils_its_answer_only():
    def picky(texts):
        if "poison" in texts:
            raise RuntimeError("too strange")
        return toy(texts)

    reward = DetectorReward(embedder=picky)
    answers = [answer(one()), answer(one(reason="poison")), answer(one(reason="bb"))]
    assert reward(answers, defects=[[one()]] * 3) == pytest.approx([1.0, -1.0, 0.8125])
    assert reward.score(answers[1], [one()]).error == "RuntimeError: too strange"
    with pytest.raises(RuntimeError, match="too strange"):  # a true reason: the embedder is at fault, not the answer
        reward([answer(one())], defects=[[one(reason="poison")]])


def test_an_embedder_that_is_not_there_is_said():
    def absent(texts):
        raise EmbedderNotFound("no such model")

    with pytest.raises(EmbedderNotFound, match="no such model"):
        DetectorReward(embedder=absent)([answer(one())], defects=[[one()]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"caption": ["a"]}, r"needs the column 'defects' .*; there are \['caption'\]"),
        ({"defects": [[], []]}, "1 completions but 2 rows of defects"),
        ({"defects": [None]}, "defects of row 0: expected a list of defects, got None"),
        ({"defects": ["{"]}, "defects of row 0"),
        ({"defects": [[{"box": [0, 0, 5, 0], "type": "artifact"}]]}, "defects of row 0: defect 0: box y1=0"),
        ({"defects": [[{"box": [0, 0, 5, 5]}]]}, "defects of row 0: defect 0: type is missing"),
    ],
)
def test_bad_columns_are_the_callers_mistake(columns, message):
    with pytest.raises(ValueError, match=message):
        DetectorReward(embedder=toy)([answer()], **columns)


def test_each_kind_of_fault_is_logged_once(caplog):
    reward = DetectorReward(embedder=toy)
    with caplog.at_level(logging.WARNING):
        reward([answer(one((5, 5, 5, 9))), answer(one((7, 5, 7, 9))), "nothing"] * 4, defects=[[]] * 12)
        reward(["nothing"], defects=[[]])
    assert len(caplog.records) == 2
    assert "scores -1.0: defect 0: box x1=5 is not right of x0=5" in caplog.text
    assert "no <think> tag" in caplog.text


def test_one_call_a_batch_and_none_for_what_is_known():
    texts = Counting()
    reward = DetectorReward(embedder=texts)
    answers = [answer(one(reason=r)) for r in ("aa", "bb", "aa", "bb")]
    first = reward(answers, defects=[[one()]] * 4)
    assert texts.calls == [["aa", "bb"]]
    assert reward(answers, defects=[[one()]] * 4) == first
    reward([answer(one(reason="cc")), "nothing"], defects=[[one()]] * 2)
    assert texts.calls == [["aa", "bb"], ["cc"]]


def test_the_cache_is_bounded_and_keeps_what_was_used_last():
    texts = Counting()
    reward = DetectorReward(embedder=texts, cache_size=2)
    for reason in ("aa", "bb", "aa", "cc", "aa"):
        reward.score(answer(one(reason=reason)), [one(reason=reason)])
    assert texts.calls == [["aa"], ["bb"], ["cc"]]
    assert len(reward._vectors) == 2
    nothing_kept = DetectorReward(embedder=toy, cache_size=0)
    assert nothing_kept([answer(one(reason="bb"))], defects=[[one()]]) == pytest.approx([0.8125])


def test_parts_are_logged_as_trl_takes_them():
    metrics, extra = {}, {}
    rewards = DetectorReward(embedder=toy)(
        completions=[answer(one()), answer(one(reason="bb")), "nothing"],
        prompts=["p"] * 3,
        completion_ids=[[1]] * 3,
        trainer_state=None,
        defects=[[one()]] * 3,
        log_metric=metrics.__setitem__,
        log_extra=extra.__setitem__,
    )
    assert rewards == pytest.approx([1, 0.8125, -1])
    expected = {"format_ok": 2 / 3, "loc": 1, "desc": 0.625, "imp": 1}
    assert metrics == pytest.approx({f"detector_reward/{name}": value for name, value in expected.items()})
    assert extra["format_ok"] == [True, True, False]
    assert extra["desc"] == pytest.approx([1, 0.25, 0])
    DetectorReward(embedder=toy)(["nothing"], defects=[[]], log_metric=metrics.__setitem__)
    assert metrics["detector_reward/format_ok"] == 0


def test_an_empty_batch():
    assert DetectorReward(embedder=toy)([], defects=[], log_metric=lambda *_: pytest.fail("nothing to log")) == []


def slow_diou(a, b):
    common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - common
    apart = sum(((a[k] + a[k + 2] - b[k] - b[k + 2]) / 2) ** 2 for k in (0, 1))
    diagonal = sum((max(a[k + 2], b[k + 2]) - min(a[k], b[k])) ** 2 for k in (0, 1))
    return common / area - apart / diagonal


def slow_matchings(p, g):
    """Every one-to-one matching within the types that matches as many as can be, as lists of (i, j)."""
    whole = [[]]
    for kind in ("artifact", "misalignment"):
        rows = [i for i, d in enumerate(p) if d["type"] == kind]
        columns = [j for j, d in enumerate(g) if d["type"] == kind]
        if len(rows) <= len(columns):
            ways = [list(zip(rows, order, strict=True)) for order in permutations(columns, len(rows))]
        else:
            ways = [list(zip(order, columns, strict=True)) for order in permutations(rows, len(columns))]
        whole = [before + way for before in whole for way in ways]
    return whole


def slow_parts(p, g, pairs):
    n = max(len(p), len(g), 1)
    clip = lambda x, low, high: max(low, min(high, x))  # noqa: E731
    if p and g:
        total = sum(slow_diou(p[i]["box"], g[j]["box"]) for i, j in pairs)
        loc = clip((total - 0.5 * (len(p) + len(g) - 2 * len(pairs))) / n, -1, 1)
    else:
        loc = -0.3 if p else -0.8 if g else 0.3
    desc = imp = 0.0
    for i, j in pairs:
        if p[i]["reason"] and g[j]["reason"]:
            cosine = float(toy([p[i]["reason"]])[0] @ toy([g[j]["reason"]])[0])
            desc += clip((cosine - 0.5) / 0.4, 0, 1) / n
        if g[j]["importance"] is not None:
            imp += clip(1 - abs(p[i]["importance"] - g[j]["importance"]) / 50, 0, 1) / n
    return 0.6 * loc + 0.25 * desc + 0.15 * imp, loc, desc, imp


predictions = items.map(lambda ds: [d | {"importance": d["importance"] or 7} for d in ds])


@settings(max_examples=60)
@given(predictions, items)
def test_agrees_with_a_slow_version(p, g):
    scored = DetectorReward(embedder=toy).score(answer(*p), g)
    ways = [
        (sum(slow_diou(p[i]["box"], g[j]["box"]) for i, j in pairs), slow_parts(p, g, pairs))
        for pairs in slow_matchings(p, g)
    ]
    best = max(total for total, _ in ways)
    # Of equally good matchings either may be taken; reasons and importances then differ.
    optimal = [parts for total, parts in ways if total > best - 1e-9]
    got = [getattr(scored, name) for name in PARTS]
    assert any(got == pytest.approx(parts, abs=1e-9) for parts in optimal)
    assert -1 <= scored.total <= 1


@settings(max_examples=40)
@given(st.lists(st.tuples(predictions, items), max_size=6), st.randoms())
def test_a_batch_is_its_answers_one_by_one_in_any_order(rows, random):
    reward = DetectorReward(embedder=toy)
    alone = [DetectorReward(embedder=toy).score(answer(*p), g).total for p, g in rows]
    assert reward([answer(*p) for p, _ in rows], defects=[g for _, g in rows]) == pytest.approx(alone)
    shuffled = [(random.sample(p, len(p)), random.sample(g, len(g))) for p, g in rows]
    assert reward([answer(*p) for p, _ in shuffled], defects=[g for _, g in shuffled]) == pytest.approx(alone)


@settings(max_examples=40)
@given(st.lists(st.tuples(items, items), min_size=1, max_size=5))
def test_matches_as_the_matching_of_single_pictures_does(rows):
    rows = [(DefectSet.of(p), DefectSet.of(g)) for p, g in rows]
    expected = [match(p, g, by="diou") for p, g in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "_TOGETHER", 2)
        assert [sorted(pairs) for pairs in rewards._match(*zip(*rows, strict=True))] == expected


@settings(max_examples=60)
@given(st.text() | st.text('<>/thinkaswer[]{}"box_2d:, 0123456789'))
def test_no_text_raises(text):
    parts = DetectorReward(embedder=toy).score(text, [one()])
    assert parts.format_ok or parts.total == -1
