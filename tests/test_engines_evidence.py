"""What the local engine notes beside the text: log-probabilities, where tokens end, features of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from standins import build, digit_tokenizer, picture

from sdg.engines.evidence import token_ends
from sdg.engines.transformers import TransformersEngine

IMAGES = [picture(0), picture(1, (160, 96)), picture(2, (64, 200))]
PROMPTS = ["caption: a red car", "caption: a red car by the green tree and what is wrong", "caption: the left hand"]


@pytest.fixture(scope="module", params=[False, True], ids=["number tokens", "digits"])
def engine(request):
    return TransformersEngine(*build(digits=request.param), max_new_tokens=24)


def written(engine, image, prompt):
    """The prompt's inputs and the tokens of the greedy answer to it."""
    inputs = engine.inputs([image], [prompt])
    return inputs, engine._run(inputs)[0, inputs["input_ids"].shape[1] :]


def direct(engine, inputs, new):
    """Log-probability of each new token by one forward pass over prompt and answer."""
    ids = torch.cat([inputs["input_ids"][0], new])[None]
    kinds = torch.cat([inputs["mm_token_type_ids"][0], torch.zeros_like(new)])[None]
    with torch.inference_mode():
        logits = engine.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=kinds,
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
        ).logits[0]
    return logits[len(ids[0]) - len(new) - 1 : -1].float().log_softmax(-1).gather(1, new[:, None])[:, 0]


def test_log_probabilities_are_those_of_a_forward_pass_alone_and_in_a_batch(engine):
    together = engine.generate(IMAGES, PROMPTS)
    for image, prompt, batched in zip(IMAGES, PROMPTS, together, strict=True):
        inputs, new = written(engine, image, prompt)
        expected = direct(engine, inputs, new[: batched.new_tokens]).tolist()
        (alone,) = engine.generate([image], [prompt])
        assert len(expected) == batched.new_tokens > 0
        np.testing.assert_allclose(alone.evidence.logprobs, expected, atol=2e-3)
        np.testing.assert_allclose(batched.evidence.logprobs, expected, atol=2e-3)
    assert max(len(set(np.round(a.evidence.logprobs, 2))) for a in together) > 3


def test_a_stream_notes_what_a_batch_notes(engine):
    stream = engine.stream(IMAGES[0], PROMPTS[0])
    while True:
        try:
            next(stream)
        except StopIteration as end:
            streamed = end.value.evidence
            break
    (answer,) = engine.generate(IMAGES[:1], PROMPTS[:1])
    np.testing.assert_allclose(streamed.logprobs, answer.evidence.logprobs, atol=1e-4)
    assert streamed.token_ends == answer.evidence.token_ends
    np.testing.assert_allclose(streamed.picture, answer.evidence.picture, atol=1e-4)


def test_under_a_grammar_they_are_the_models_own():
    pytest.importorskip("xgrammar")
    model, processor = build()
    engine = TransformersEngine(model, processor, max_new_tokens=320, constrained=True)
    (answer,) = engine.generate(IMAGES[:1], PROMPTS[:1])
    inputs = engine.inputs(IMAGES[:1], PROMPTS[:1])
    new = torch.tensor(processor.tokenizer.encode(answer.text[: answer.evidence.token_ends[0]]))
    free = TransformersEngine(model, processor, max_new_tokens=1).generate(IMAGES[:1], PROMPTS[:1])[0]
    assert free.text != answer.text[: len(free.text)]
    expected = direct(engine, inputs, new).item()
    assert answer.evidence.logprobs[0] == pytest.approx(expected, abs=2e-3)
    assert answer.evidence.logprobs[0] < free.evidence.logprobs[0]


def test_token_ends_cut_the_text_into_its_tokens(engine):
    for answer, (image, prompt) in zip(
        engine.generate(IMAGES, PROMPTS), zip(IMAGES, PROMPTS, strict=True), strict=True
    ):
        _, new = written(engine, image, prompt)
        ends = answer.evidence.token_ends
        assert len(ends) == answer.new_tokens
        assert ends[-1] == len(answer.text)
        assert list(ends) == sorted(ends)
        tokenizer = engine.processor.tokenizer
        for count, end in enumerate(ends, start=1):
            text = tokenizer.decode(new[:count], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            assert answer.text[:end] == text.rstrip("�") or count == len(ends)


@given(st.text(max_size=30))
def test_a_character_of_several_tokens_ends_with_the_last_of_them(text):
    tokenizer = digit_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    expected = np.cumsum([len(c.encode()) for c in text]).tolist()
    ends = token_ends(tokenizer, ids, decoded)
    if decoded == text and len(ids) == len(text.encode()):
        assert [ends.index(i + 1) + 1 for i in range(len(text))] == expected


def test_tokens_that_do_not_spell_the_text_have_no_ends():
    tokenizer = digit_tokenizer()
    assert token_ends(tokenizer, tokenizer.encode("abc"), "abd") is None
    assert token_ends(object(), [1], "a") is None
    assert token_ends(tokenizer, [], "") == ()


def test_features_are_the_vision_towers_mean_alone_in_a_batch_and_without_an_answer(engine):
    together = [answer.evidence.picture for answer in engine.generate(IMAGES, PROMPTS)]
    asked = engine.picture_features(IMAGES)
    for image, prompt, batched, found in zip(IMAGES, PROMPTS, together, asked, strict=True):
        inputs = engine.inputs([image], [prompt])
        with torch.inference_mode():
            tower = engine.model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
        expected = tower.last_hidden_state.float().mean(0).numpy()
        for other in (batched, found):
            np.testing.assert_allclose(other, expected, atol=1e-3)
    assert not engine.model.model.visual._forward_hooks
    assert not np.allclose(together[0], together[1], atol=1e-2)


def test_a_model_without_a_known_tower_has_no_features(engine, monkeypatch):
    monkeypatch.setattr(type(engine.model), "get_encoder", lambda self, modality=None: self)
    (answer,) = engine.generate(IMAGES[:1], PROMPTS[:1])
    assert answer.evidence.picture is None
    assert answer.evidence.logprobs


def test_drawn_answers_follow_the_seed_and_leave_the_callers_numbers_alone(engine):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (
        [a.text for a in engine.generate(IMAGES, PROMPTS, temperature=2.0, seed=seed)] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())
