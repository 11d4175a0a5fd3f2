"""Text from a local Qwen3-VL-style checkpoint, through transformers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria, TextIteratorStreamer

from sdg.calibration.evidence import Evidence
from sdg.engines.base import MAX_NEW_TOKENS, Generation
from sdg.engines.checkpoints import HubOptions, load
from sdg.engines.constrained import Constraint
from sdg.engines.evidence import Notes
from sdg.engines.fast import quick_vision
from sdg.engines.shrinking import shrinking

ANSWER_TAGS = ("<think>", "</think>", "<answer>", "</answer>")

NO_THOUGHT = "<think></think>\n<answer>"
"""How an answer begins that is not thought about first."""


class TransformersEngine:
    """A model and its processor as an :class:`~sdg.engines.base.Engine`; greedy decoding.

    Args:
        model: an image-text-to-text model of transformers, on its device.
        processor: its processor, with a chat template.
        max_new_tokens: longest answer, in tokens.
        constrained: let the model write nothing but a valid answer (needs xgrammar).
        name: how results name the model.
        answer_only: begin the answer for the model, behind an empty think block: quicker, less often right.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        constrained: bool = False,
        name: str | None = None,
        answer_only: bool = False,
    ):
        if answer_only and constrained:
            raise ValueError("answer_only=True leaves out what constrained=True asks for: choose one")
        self.begun = NO_THOUGHT if answer_only else ""
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
        # Qwen-VL models keep the last prompt's positions on themselves: two calls at a time would mix them up.
        self._lock = threading.Lock()
        self._constraint: Constraint | None = None
        if constrained:
            width = model.config.get_text_config().vocab_size
            self._constraint = Constraint(processor.tokenizer, width, self._ends)
            self._constraint.processors(max_new_tokens)  # refuses a limit without room before any picture is read

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "sdg-tiny",
        *,
        hub: HubOptions | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        constrained: bool = False,
        answer_only: bool = False,
        name: str | None = None,
        **options: Any,
    ) -> TransformersEngine:
        """An engine on a checkpoint.

        Args:
            name_or_path: embedded name, local folder or Hub id.
            hub: how files are found.
            max_new_tokens: longest answer, in tokens.
            constrained: as in the class.
            answer_only: as in the class.
            name: how results and messages name the model; None is the folder's name, or the id.
            **options: ``device_map``, ``dtype``, ``quantization_config``, ``adapter`` and ``adapter_name`` of
                :func:`~sdg.engines.checkpoints.load`.

        Raises:
            CheckpointError: saying what was tried and what to do.
        """
        model, processor = load(name_or_path, hub or HubOptions(), name=name, **options)
        given = os.fspath(name_or_path if name is None else name)
        name = os.path.basename(given.rstrip("/")) if os.path.isdir(given) else given
        return cls(
            model,
            processor,
            max_new_tokens=max_new_tokens,
            constrained=constrained,
            name=name or given,
            answer_only=answer_only,
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and processor as transformers does: safetensors, configuration, tokenizer, chat template.

        Raises:
            ValueError: for a quantised model with an adapter on top, whose weights cannot be written as one model.
        """
        if hasattr(self.model, "peft_config"):
            raise ValueError(
                "an adapter on quantised weights cannot be saved as one checkpoint: load it without quantization_config"
            )
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def inputs(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Any:
        """The model's inputs for one turn each, padded on the left, on the model's device."""
        texts = []
        for prompt in prompts:
            for token in self._special:
                prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            turn = [{"role": "user", "content": content}]
            chat = self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            texts.append(chat + self.begun)
        batch = self.processor(
            text=texts,
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        return batch.to(self.model.device)

    def generate(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generation]:
        """Answer a batch in one pass: one RGB picture and one instruction each.

        Args:
            images: RGB pictures.
            prompts: as many instructions.
            temperature: 0 is greedy; above it answers are drawn, and ``seed`` decides which.
            seed: of the drawing.

        Returns:
            as many answers, in the same order; the same ones that the pictures get alone, up to rounding.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
        if not images:
            return []
        started = time.perf_counter()
        inputs = self.inputs(images, prompts)
        rules = self._constraint.processors(self.max_new_tokens) if self._constraint else ()
        notes = Notes(self.model, self.processor.tokenizer, len(images))
        output = self._run(inputs, notes, rules, temperature, seed)
        width = inputs["input_ids"].shape[1]
        lengths = inputs["attention_mask"].sum(1).tolist()
        answers = [self._answer(ids) for ids in output[:, width:].tolist()]
        texts = self.processor.tokenizer.batch_decode(
            [ids for ids, _ in answers], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        cut = rules[1].cut if rules else [False] * len(images)
        seconds = (time.perf_counter() - started) / len(images)
        return [
            Generation(
                text=self.begun + texts[row],
                prompt_tokens=lengths[row],
                new_tokens=len(ids),
                seconds=seconds,
                finished=ended and not cut[row],
                evidence=self._evidence(notes, row, ids, texts[row]),
            )
            for row, (ids, ended) in enumerate(answers)
        ]

    def stream(self, image: Image.Image, prompt: str) -> Generator[str, None, Generation]:
        """Answer one picture piece by piece. Closing the iterator stops the model; its errors are raised here."""
        started = time.perf_counter()
        inputs = self.inputs([image], [prompt])
        pieces = _Pieces(self.processor.tokenizer, self._ends)
        stop, failures, text = threading.Event(), [], ""
        if self.begun:
            yield self.begun
        rules = self._constraint.processors(self.max_new_tokens) if self._constraint else ()
        notes = Notes(self.model, self.processor.tokenizer, 1)
        written: list[int] = []

        def work() -> None:
            try:
                output = self._run(inputs, notes, rules, streamer=pieces, stopping_criteria=[_Stop(stop)])
                written.extend(self._answer(output[0, inputs["input_ids"].shape[1] :].tolist())[0])
            except BaseException as error:
                failures.append(error)
                pieces.end()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            for piece in pieces:
                if piece:
                    text += piece
                    yield piece
        finally:
            stop.set()
            thread.join()
        if failures:
            raise failures[0]
        finished = pieces.ended and not (rules and rules[1].cut[0])
        seconds = time.perf_counter() - started
        evidence = self._evidence(notes, 0, written, text)
        return Generation(
            self.begun + text, inputs["input_ids"].shape[1], pieces.count, seconds, finished, evidence=evidence
        )

    def _evidence(self, notes: Notes, row: int, ids: list[int], text: str) -> Evidence:
        """What is known of an answer; how sure it is without a think text was not calibrated."""
        evidence = notes.evidence(row, ids, text)
        return replace(evidence, token_ends=None) if self.begun else evidence

    def picture_features(self, images: Sequence[Image.Image]) -> list[tuple[float, ...] | None]:
        """What the vision tower makes of pictures, as :class:`~sdg.calibration.evidence.Evidence` holds it.

        Costs one pass over the prompt; answers bring the same along for nothing.
        """
        inputs = self.inputs(images, [""] * len(images))
        notes = Notes(self.model, self.processor.tokenizer, len(images))
        self._run(inputs, notes, max_new_tokens=1)
        return [notes.evidence(row, [], "").picture for row in range(len(images))]

    def _run(
        self,
        inputs: Any,
        notes: Notes | None = None,
        rules: Sequence[LogitsProcessor] = (),
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Generation. What a checkpoint's own settings say about sampling and penalties is set back."""
        pad = self.processor.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=max_new_tokens or self.max_new_tokens,
            do_sample=temperature > 0,
            temperature=temperature or None,
            top_k=0 if temperature else None,
            top_p=1.0 if temperature else None,
            num_beams=1,
            repetition_penalty=1.0,
            use_cache=True,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=pad if pad is not None else min(self._ends, default=None),
        )
        notes = notes or Notes(self.model, self.processor.tokenizer, len(inputs["input_ids"]))
        with (
            self._lock,
            _evaluating(self.model),
            torch.inference_mode(),
            quick_vision(self.model),
            notes.watching(),
            _drawing(temperature, seed),
        ):
            processors = [notes.logprobs, *rules]
            if len(inputs["input_ids"]) > 1 and config.pad_token_id is not None:
                options["custom_generate"] = shrinking(self._ends, config.pad_token_id)
            output = self.model.generate(**inputs, generation_config=config, logits_processor=processors, **options)
            notes.finish(output)
            return output

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


@contextmanager
def _drawing(temperature: float, seed: int) -> Iterator[None]:
    """Random numbers of ``seed`` where answers are drawn, and the caller's own afterwards."""
    if not temperature:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class _Pieces(TextIteratorStreamer):
    """Text as it is written, without the prompt and the end mark."""

    def __init__(self, tokenizer: Any, ends: frozenset[int]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        self._ends = ends
        self.count, self.ended = 0, False

    def put(self, value: torch.Tensor) -> None:
        if self.next_tokens_are_prompt:
            super().put(value)
        elif value.item() in self._ends:
            self.ended = True
        else:
            self.count += 1
            super().put(value)


class _Stop(StoppingCriteria):
    """Stops generation once an event is set."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), dtype=torch.bool, device=input_ids.device)
