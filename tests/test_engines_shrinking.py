"""Answers leave the batch when they end, and no answer changes for it."""

import pytest
import torch
from standins import build, picture

from sdg import microworld
from sdg.detector import SDGDetector
from sdg.engines import transformers as engine_module
from sdg.engines.attention import decode_attention


@pytest.fixture(scope="module")
def detector():
    return SDGDetector.from_pretrained("sdg-tiny", dtype="float32")


@pytest.fixture(scope="module")
def records():
    return list(microworld.generate(12, seed=5, split="validation"))


def test_the_same_answers_as_one_by_one_and_as_transformers_own_loop(detector, records, monkeypatch):
    images, captions = [r.image for r in records], [r.caption for r in records]
    shrunk = detector(images, captions, batch_size=12)
    monkeypatch.setattr(engine_module, "shrinking", lambda ended, pad: None)
    plain = detector(images, captions, batch_size=12)
    alone = [detector(image, caption) for image, caption in zip(images, captions, strict=True)]
    assert [a.raw for a in shrunk] == [a.raw for a in plain] == [a.raw for a in alone]
    assert len({len(a.raw) for a in shrunk}) > 1, "answers of one length would not show anything"
    sure = [[d.confidence for d in a] for a in shrunk]
    for found, others in ((plain, sure), (alone, sure)):
        for a, b in zip(found, others, strict=True):
            assert [d.confidence for d in a] == pytest.approx(b, abs=1e-3)


def test_rows_leave_the_model_as_they_end(detector, records):
    rows = []
    model = detector.engine.model
    handle = model.register_forward_pre_hook(lambda m, a, k: rows.append(len(k["input_ids"])), with_kwargs=True)
    try:
        detector([r.image for r in records], [r.caption for r in records], batch_size=12)
    finally:
        handle.remove()
    assert rows[0] == 12
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 6


def test_drawn_answers_are_the_seeds(detector, records):
    images, captions = [r.image for r in records], [r.caption for r in records]
    prompts = [detector.prompt.format(c) for c in captions]
    a, again, b = (detector.engine.generate(images, prompts, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert [g.text for g in a] == [g.text for g in again]
    assert [g.text for g in a] != [g.text for g in b]


def test_an_answer_that_never_ends_stops_at_the_limit_beside_others():
    model, processor = build()
    engine = engine_module.TransformersEngine(model, processor, max_new_tokens=9)
    answers = engine.generate([picture(), picture(1)], ["one", "two"])
    assert all(g.new_tokens <= 9 for g in answers)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_attention_of_one_query_is_the_fused_kernels(groups, masked):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 1, 8), torch.randn(3, groups, 7, 8), torch.randn(3, groups, 7, 8)
    seen = torch.rand(3, 1, 1, 7) < 0.7
    seen[..., -1] = True
    mask = {None: None, "bool": seen, "float": torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))}[masked]
    wide = [part.repeat_interleave(4 // groups, dim=1) for part in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *wide, attn_mask=mask).transpose(1, 2)
    got, weights = decode_attention(None, query, key, value, mask)
    assert weights is None
    torch.testing.assert_close(got, expected)


def test_an_answer_without_a_think_text_is_read_and_shorter(detector, records):
    quick = SDGDetector.from_pretrained("sdg-tiny", dtype="float32", answer_only=True)
    images, captions = [r.image for r in records], [r.caption for r in records]
    answers = quick(images, captions, batch_size=12)
    assert all(a.raw.startswith("<think></think>\n<answer>") for a in answers)
    assert sum(a.parse_error is None for a in answers) > len(answers) / 2  # it was trained to think first
    assert sum(a.info["new_tokens"] for a in answers) < sum(a.info["new_tokens"] for a in detector(images, captions))
    assert {d.confidence for a in answers for d in a} <= {None}
    assert not any(a.info["calibrated"] for a in answers)
    with pytest.raises(ValueError, match=r"min_confidence=0\.9 needs confidences"):
        quick(images[0], captions[0], min_confidence=0.9)
    assert "".join(quick.stream(images[0], captions[0])) == answers[0].raw


def test_answer_only_and_constrained_exclude_each_other():
    model, processor = build()
    with pytest.raises(ValueError, match="answer_only=True"):
        engine_module.TransformersEngine(model, processor, constrained=True, answer_only=True)
