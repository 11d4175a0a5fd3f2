"""Constrained decoding: whatever the weights, the answer passes the strict reader."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import build, picture

from sdg.boxes import GRID
from sdg.defects import Defect, DefectSet
from sdg.engines.constrained import GRAMMAR, MIN_NEW_TOKENS, Constraint, completable
from sdg.engines.transformers import TransformersEngine
from sdg.response import parse_response, render_response

xgrammar = pytest.importorskip("xgrammar")


@settings(deadline=None)
@given(st.integers(0, GRID), st.integers(0, GRID), st.integers(0, GRID), st.integers(0, 4))
def test_completable_agrees_with_trying_every_number(value, low, high, length):
    digits = str(value)[:length]
    assert completable(digits, low, high) == any(str(n).startswith(digits) for n in range(low, high + 1))


@pytest.fixture(scope="module", params=[False, True], ids=["numbers", "digits"])
def constraint(request):
    _, processor = build(digits=request.param)
    return Constraint(processor.tokenizer, len(processor.tokenizer), [processor.tokenizer.eos_token_id])


def write(constraint, logits, limit, rows=1):
    """Greedy decoding of ``rows`` answers from ``logits(step)``, (rows, vocabulary), with no model in between."""
    rules = constraint.processors(limit)
    ids = torch.zeros(rows, 1, dtype=torch.long)
    texts, open_rows = [b""] * rows, set(range(rows))
    for step in range(limit):
        scores = logits(step).clone()
        for rule in rules:
            scores = rule(ids, scores)
        chosen = scores.argmax(1)
        for row in sorted(open_rows):
            assert scores[row, chosen[row]] > -torch.inf
            if chosen[row].item() in constraint.ends:
                open_rows.remove(row)
            else:
                texts[row] += constraint.vocabulary[chosen[row]]
        if not open_rows:
            break
        ids = torch.cat([ids, chosen[:, None]], dim=1)
    assert not open_rows, "cut off at the limit"
    return [text.decode() for text in texts], rules[1].cut


def asking_for(constraint, wishes):
    """Logits that always ask for the same tokens: text -> logit; numbers only where they are one token."""
    logits = torch.zeros(1, len(constraint.vocabulary))
    for text, logit in wishes.items():
        tokens = constraint.encode(text)
        if len(tokens) == 1 or not text.isdigit():
            logits[0, tokens] = logit
    return lambda step: logits


@pytest.mark.parametrize("seed", range(4))
def test_any_logits_write_a_valid_answer(constraint, seed):
    def logits(step):
        return torch.randn(6, len(constraint.vocabulary), generator=generator) + liking

    generator = torch.Generator().manual_seed(seed)
    liking = 3 * torch.randn(6, len(constraint.vocabulary), generator=generator)
    # Rows that like some of these find their way into lists, boxes and descriptions.
    for row, text in enumerate(["</think>", "{", '"', ", ", "}", "999"]):
        liking[row, constraint.encode(text)] += 12
    texts, _ = write(constraint, logits, limit=MIN_NEW_TOKENS + 100 * seed, rows=6)
    for text in texts:
        parse_response(text, strict=True)


def test_corners_that_the_model_wants_to_fall_rise_all_the_same(constraint):
    """Smaller numbers are liked better: without the rule every box would be 0, 0, 0, 0."""
    numbers = {str(n): 60 - n / 50 for n in range(GRID + 1)}
    texts, _ = write(constraint, asking_for(constraint, numbers | {'"': 90, "<": 80, "{": 80, "}": 80}), limit=700)
    assert parse_response(texts[0], strict=True)[0].box[:2] == (0, 0)


def test_corners_at_the_far_edge_leave_room(constraint):
    """Larger numbers are liked better: without the rule x0 would be 1000, and no x1 could follow."""
    numbers = {str(n): 60 + n / 50 for n in range(GRID + 1)}
    texts, _ = write(constraint, asking_for(constraint, numbers | {'"': 90, "<": 95, "{": 95, "}": 95}), limit=700)
    assert parse_response(texts[0], strict=True)[0].box == (999, 999, 1000, 1000)


@pytest.mark.parametrize(
    ("wishes", "count"),
    [
        ({"x": 50}, 0),
        ({"x": 40, "<": 50, "{": 60}, 1),
        ({"<": 99, "{": 90, '"': 95, ",": 60, "1": 10}, 3),
    ],
    ids=["thinking", "description", "list"],
)
def test_what_would_never_end_is_closed(constraint, wishes, count):
    (text,), (cut,) = write(constraint, asking_for(constraint, wishes), limit=800)
    found = parse_response(text, strict=True)
    assert len(found) >= count
    assert cut


def test_half_a_character_is_completed_before_a_text_is_closed(constraint):
    (text,), (cut,) = write(constraint, asking_for(constraint, {"€": 50}), limit=400)
    assert cut
    assert not parse_response(text, strict=True).reasoning.isascii()


@pytest.mark.parametrize("digits", [False, True])
def test_a_model_answers_validly_in_batches_and_streams(digits):
    model, processor = build(digits)
    engine = TransformersEngine(model, processor, max_new_tokens=320, constrained=True)
    answers = engine.generate([picture(0), picture(1)], ["caption: a car", "caption: a tree by the left hand"])
    for answer in answers:
        parse_response(answer.text, strict=True)
    assert "".join(engine.stream(picture(0), "caption: a car")) == answers[0].text


@pytest.mark.parametrize(
    "found",
    [
        DefectSet(reasoning="nothing"),
        DefectSet((Defect((0, 0, 1, 1), "artifact", 'a "quoted" back\\slash', 1),), reasoning="x\ny"),
        DefectSet((Defect((1, 20, 300, 1000), "misalignment", "grün …", 100),) * 3, reasoning="Step 1: a > b"),
    ],
)
def test_the_grammar_accepts_what_the_renderer_writes(found):
    _, processor = build()
    info = xgrammar.TokenizerInfo.from_huggingface(processor.tokenizer)
    matcher = xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(info).compile_grammar(GRAMMAR))
    assert matcher.accept_string(render_response(found))
    assert matcher.is_completed()


def test_a_limit_without_room_is_refused():
    model, processor = build()
    with pytest.raises(ValueError, match=r"max_new_tokens=50 leaves no room.*at least \d+"):
        TransformersEngine(model, processor, max_new_tokens=50, constrained=True)


def test_tokens_that_hold_two_numbers_are_refused_in_a_box(constraint):
    refused = {constraint.vocabulary[i] for ids in constraint.refused_in_box("3", 300, 380) for i in ids.tolist()}
    assert {b"9", b","} <= refused
    assert not {b"0", b"7"} & refused
    assert not any(re.search(rb"\D\d", token) for token in set(constraint.vocabulary) - refused)
