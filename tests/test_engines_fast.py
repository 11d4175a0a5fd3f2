"""The rearranged vision tower gives the same numbers, where it fits, and leaves no trace."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from standins import build, picture

from sdg.engines import fast
from sdg.engines.fast import quick_vision
from sdg.engines.transformers import TransformersEngine

SIZES = {"same": [(128, 128)] * 5, "mixed": [(128, 128), (96, 160), (128, 128), (64, 96), (64, 96)]}


def replaced(model):
    return sorted(name for name, module in model.named_modules() if "forward" in vars(module))


def features(model, inputs):
    with torch.inference_mode():
        return model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])


@pytest.mark.parametrize("part", [1, 10**6])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_same_features(part, sizes, attention, monkeypatch):
    model, processor = build()
    model.eval().set_attn_implementation(attention)
    engine = TransformersEngine(model, processor)
    inputs = engine.inputs([picture(i, size) for i, size in enumerate(sizes)], ["a"] * len(sizes))
    plain = features(model, inputs)
    monkeypatch.setattr(fast, "PART", part)
    parts = []
    handle = model.model.visual.patch_embed.register_forward_hook(lambda module, args, output: parts.append(output))
    with quick_vision(model):
        assert replaced(model)
        quick = features(model, inputs)
    handle.remove()
    assert len(parts) == (len(sizes) if part == 1 else 1)
    torch.testing.assert_close(quick.last_hidden_state, plain.last_hidden_state, atol=1e-5, rtol=1e-5)
    for a, b in zip(quick.pooler_output, plain.pooler_output, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert len(quick.deepstack_features) == len(plain.deepstack_features) > 0
    for layer, expected in zip(quick.deepstack_features, plain.deepstack_features, strict=True):
        for a, b in zip(layer, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert not replaced(model)


def test_an_error_takes_it_off_too():
    model, _ = build()
    with pytest.raises(KeyError), quick_vision(model):
        raise KeyError
    assert not replaced(model)


def other_attention(model):
    model.model.visual.config._attn_implementation = "flash_attention_2"


def other_tower(model):
    model.model.visual.__class__ = type("Other", (type(model.model.visual),), {})


@pytest.mark.parametrize(
    "change",
    [lambda model: model.bfloat16(), lambda model: model.to("meta"), other_attention, other_tower],
    ids=["bfloat16", "not on a CPU", "other attention", "other tower"],
)
def test_what_it_does_not_fit_is_left_as_it_is(change):
    model, _ = build()
    change(model)
    with quick_vision(model):
        assert not replaced(model)


def test_a_forward_pass_that_someone_put_there_stays():
    model, _ = build()
    attention = model.model.visual.blocks[0].attn
    attention.forward = theirs = attention.forward
    with quick_vision(model):
        assert len(replaced(model)) == 1
    assert vars(attention)["forward"] is theirs


def test_the_engine_uses_it(monkeypatch):
    engine = TransformersEngine(*build(), max_new_tokens=2)
    seen = []
    original = fast.patch_embedding
    monkeypatch.setattr(fast, "patch_embedding", lambda module: seen.append(module) or original(module))
    engine.generate([picture()], ["a"])
    assert seen == [engine.model.model.visual.patch_embed]
    assert not replaced(engine.model)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 100))
def test_parts_hold_every_picture_once_and_no_more_than_they_may(patches, most):
    left = list(patches)
    for pictures, count in fast._parts(patches, most):
        taken, left = left[:pictures], left[pictures:]
        assert sum(taken) == count
        assert count <= most or pictures == 1
    assert not left
