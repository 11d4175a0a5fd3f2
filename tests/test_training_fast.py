"""The quick forward pass gives the same numbers and the same gradients."""

import pytest
import torch
from standins import build, picture

from sdg.defects import DefectSet
from sdg.prompts import Prompt
from sdg.records import Record
from sdg.training.collator import SFTCollator
from sdg.training.fast import fast

CAPTIONS = ["a red car", "the left hand is melted", "a"]


def run(model, batch, masked):
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "coordinates", "attention_mask")}
    if masked:
        inputs["attention_mask"] = batch["attention_mask"]
    model.zero_grad()
    logits = model(**inputs, use_cache=False).logits[batch["attention_mask"].bool()]
    logits.square().mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [[(128, 128)] * 3, [(128, 128), (96, 160), (128, 128)]])
def test_same_outputs_and_gradients(masked, sizes):
    model, processor = build()
    records = [
        Record(picture(i, size), c, DefectSet()) for i, (size, c) in enumerate(zip(sizes, CAPTIONS, strict=True))
    ]
    batch = SFTCollator(processor, prompt=Prompt("caption: {caption}", "none"))(records)
    logits, gradients = run(model, batch, masked=True)
    with fast(model):
        assert "forward" in vars(model.model.visual.blocks[0].attn)
        quick, quick_gradients = run(model, batch, masked)
    torch.testing.assert_close(quick, logits, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == quick_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(quick_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_generation_is_the_same_and_the_patches_come_off():
    model, processor = build()
    before = set(vars(model.model.visual.blocks[0].attn))
    content = [{"type": "image", "image": picture()}, {"type": "text", "text": "caption: a red car"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    plain = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    with fast(model):
        assert torch.equal(model.generate(**inputs, max_new_tokens=8, do_sample=False), plain)
    assert set(vars(model.model.visual.blocks[0].attn)) == before
