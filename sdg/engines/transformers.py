"""Text from a local Qwen3-VL-style checkpoint, through transformers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from sdg.engines.base import Generation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

MAX_NEW_TOKENS = 4096
"""Room for a think text and a long list where the checkpoint names no limit of its own (App. D)."""

ANSWER_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


class TransformersEngine:
    """A model and its processor as an :class:`~sdg.engines.base.Engine`; greedy decoding.

    Args:
        model: an image-text-to-text model of transformers, on its device.
        processor: its processor, with a chat template.
        max_new_tokens: longest answer, in tokens.
        name: how results name the model.
    """

    def __init__(self, model: Any, processor: Any, *, max_new_tokens: int = MAX_NEW_TOKENS, name: str | None = None):
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
        self.model = model
        self.processor = processor
        self.max_new_tokens = max_new_tokens
        self.name = name or getattr(model, "name_or_path", "") or type(model).__name__
        # A special token inside a caption would be read as one: as a second picture, or as the end of the turn.
        special = {*processor.tokenizer.all_special_tokens, getattr(processor, "image_token", None)}
        self._special = sorted(t for t in special - {*ANSWER_TAGS, None} if len(t) > 1)
        self._ends = _ends(model, processor)

    def inputs(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Any:
        """The model's inputs for one turn each, padded on the left, on the model's device."""
        texts = []
        for prompt in prompts:
            for token in self._special:
                prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            turn = [{"role": "user", "content": content}]
            texts.append(self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
        batch = self.processor(
            text=texts,
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return batch.to(self.model.device)

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Generation]:
        """Answer a batch in one pass: one RGB picture and one instruction each.

        Returns:
            as many answers, in the same order; the same ones that the pictures get alone, up to rounding.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
        if not images:
            return []
        started = time.perf_counter()
        inputs = self.inputs(images, prompts)
        with _evaluating(self.model), torch.inference_mode():
            output = self.model.generate(**inputs, **self._settings())
        width = inputs["input_ids"].shape[1]
        lengths = inputs["attention_mask"].sum(1).tolist()
        answers = [self._answer(ids) for ids in output[:, width:].tolist()]
        texts = self.processor.tokenizer.batch_decode(
            [ids for ids, _ in answers], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        seconds = (time.perf_counter() - started) / len(images)
        return [
            Generation(text, prompt, len(ids), seconds, finished)
            for text, prompt, (ids, finished) in zip(texts, lengths, answers, strict=True)
        ]

    def _settings(self) -> dict[str, Any]:
        """What ``model.generate`` is told; a configuration of our own keeps the checkpoint's sampling settings out."""
        pad = self.processor.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=pad if pad is not None else next(iter(sorted(self._ends)), None),
        )
        return {"generation_config": config}

    def _answer(self, ids: list[int]) -> tuple[list[int], bool]:
        """The tokens before the first end mark, and whether there was one."""
        end = next((i for i, token in enumerate(ids) if token in self._ends), None)
        return (ids, False) if end is None else (ids[:end], True)


def _ends(model: Any, processor: Any) -> frozenset[int]:
    """Ids of the tokens that end an answer."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = [named] if isinstance(named, int) else list(named or [])
    return frozenset([*ids, processor.tokenizer.eos_token_id]) - {None}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The model in evaluation mode, and back to what it was: training evaluates between steps."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
