"""Scalar rewards of pictures under their prompts: R of Eq. 4, the mark that defect boxes are set against.

Each is a callable ``reward(images, prompts, **columns) -> list[float]`` with a ``__name__``, under which its values are
logged. Any function of that form does as well. None of them returns NaN.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

log = logging.getLogger(__name__)


class RewardError(RuntimeError):
    """A reward that has no marks to give; the message says why and what to do."""


Reward = Callable[..., Sequence[float]]
"""``reward(images, prompts, **columns)``: a number a picture, higher is better; ``columns`` are those of the data set
that it asks for."""


class _Similar(NamedTuple):
    """Cosines of pictures and their prompts, (B,), float32, and the model's own factor on them."""

    cosine: Tensor
    factor: float


class _CLIPReward:
    """A CLIP model that is loaded when the first picture is marked.

    Args:
        name: under which values are logged.
        model: Hub id or folder of a ``CLIPModel`` saved as safetensors.
        processor: Hub id or folder of its processor; None is the model's.
        device: where it runs; None is the GPU, where there is one.
        dtype: of the weights. In bfloat16 marks of like pictures become equal; the default is float32.
        batch_size: pictures at a time.
    """

    def __init__(
        self,
        name: str,
        model: str | Path,
        processor: str | Path | None,
        device: str | torch.device | None,
        dtype: torch.dtype,
        batch_size: int,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.__name__ = name
        self.model, self.processor = str(model), str(processor or model)
        self.device, self.dtype, self.batch_size = device, dtype, batch_size

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import CLIPModel, CLIPProcessor

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = CLIPModel.from_pretrained(self.model, dtype=self.dtype, use_safetensors=True)
        model.eval().requires_grad_(False).to(device)
        return model, CLIPProcessor.from_pretrained(self.processor)

    @torch.no_grad()
    def _similar(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> _Similar:
        _as_many(images, prompts)
        model, processor = self._loaded
        cosines: list[Tensor] = []
        for start in range(0, len(images), self.batch_size):
            texts = list(prompts[start : start + self.batch_size])
            unique = list(dict.fromkeys(texts))  # a group's pictures share their prompt, which is read once
            inputs = processor(
                text=unique,
                images=[image.convert("RGB") for image in images[start : start + self.batch_size]],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=model.config.text_config.max_position_embeddings,
            ).to(model.device)
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            # A trainer may call inside its own autocast, which would undo the choice of dtype.
            with torch.autocast(model.device.type, enabled=False):
                seen = model(**inputs)
            rows = torch.tensor([unique.index(text) for text in texts], device=model.device)
            cosines.append((seen.image_embeds.float() * seen.text_embeds.float()[rows]).sum(-1))
        factor = float(model.logit_scale.float().exp())
        return _Similar(torch.cat(cosines).cpu() if cosines else torch.zeros(0), factor)


class CLIPScore(_CLIPReward):
    """How well a picture fits its prompt: ``2.5 * max(cosine, 0)`` of CLIP's embeddings (Hessel et al., 2021).

    Args:
        model: Hub id or folder of a ``CLIPModel`` saved as safetensors.
        processor: Hub id or folder of its processor; None is the model's.
        device: where it runs; None is the GPU, where there is one.
        dtype: of the weights.
        batch_size: pictures at a time.

    Example:
        >>> CLIPScore().__name__
        'clip'
    """

    def __init__(
        self,
        model: str | Path = "openai/clip-vit-large-patch14",
        *,
        processor: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> None:
        super().__init__("clip", model, processor, device, dtype, batch_size)

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], **columns: Any) -> list[float]:
        """Marks in 0..2.5. Prompts are cut at the model's length.

        Raises:
            ValueError: where there are not as many prompts as images.
        """
        marks: list[float] = (2.5 * self._similar(images, prompts).cosine.clamp(min=0)).tolist()
        return marks


PICKSCORE = "yuvalkirstain/PickScore_v1"


class PickScore(_CLIPReward):
    """How well people would like a picture under its prompt: PickScore v1 (Kirstain et al., 2023).

    The mark is the model's scaled cosine, about 18 to 24, as papers report it.

    Args:
        model: Hub id or folder of a ``CLIPModel`` saved as safetensors.
        processor: Hub id or folder of its processor; None is the one that PickScore v1 names, or another model's own.
        device: where it runs; None is the GPU, where there is one.
        dtype: of the weights.
        batch_size: pictures at a time.
    """

    def __init__(
        self,
        model: str | Path = PICKSCORE,
        *,
        processor: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> None:
        if processor is None and model == PICKSCORE:
            processor = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        super().__init__("pick", model, processor, device, dtype, batch_size)

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], **columns: Any) -> list[float]:
        """Marks in the model's own scale. Prompts are cut at the model's length.

        Raises:
            ValueError: where there are not as many prompts as images.
        """
        similar = self._similar(images, prompts)
        marks: list[float] = (similar.factor * similar.cosine).tolist()
        return marks


class MicroworldReward:
    """The microworld's scalar scorer as a reward: 1 for a faultless picture, less for one with defects.

    Args:
        model: name, folder or Hub id of a :class:`~sdg.microworld.scorer.MicroworldScorer`.
    """

    def __init__(self, model: str | Path = "sdg-tiny-scorer") -> None:
        self.__name__ = "microworld"
        self.model = model

    @functools.cached_property
    def _scorer(self) -> Any:
        from sdg.microworld.scorer import MicroworldScorer

        return MicroworldScorer.from_pretrained(self.model)

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], **columns: Any) -> list[float]:
        """Marks in 0..1.

        Raises:
            ValueError: where there are not as many prompts as images.
        """
        marks: list[float] = self._scorer.score(images, prompts)
        return marks


JUDGE_PROMPT = """\
The picture was generated from the caption below. Rate it on three axes, each from 1 (poor) to 5 (excellent), fractions
allowed.
- Alignment: does it show the objects, attributes, relations and actions that the caption names?
- Coherence: is it free of broken shapes, distorted bodies, wrong perspective and other visual flaws?
- Style: how good does it look, apart from what the caption says?
End with exactly these three lines, a number in place of each X:
Alignment Score (1-5): X
Coherence Score (1-5): X
Style Score (1-5): X

Caption: {caption}"""
"""Asks for the three lines that UnifiedReward-2.0 writes; other judges can write them, too."""

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
JUDGE_PATTERNS = tuple(
    rf"{axis} Score(?:\s*\([^)]*\))?[^\w(]{{1,6}}?({_NUMBER})" for axis in ("Alignment", "Coherence", "Style")
)
"""Read the three lines of :data:`JUDGE_PROMPT`."""


class JudgeReward:
    """The mark of a vision-language model behind an OpenAI-compatible server, such as UnifiedReward-2.0 on vLLM.

    An answer without a readable mark in the scale, or a failed request, is counted (``asked``, ``missing``) and gets
    the mean mark of the other pictures of its prompt, so that it has no advantage of its own; where its prompt has no
    mark at all, the mean of the whole call. The key is read from the environment (``SDG_API_KEY``, or the variable of
    the host); there is no argument for it, which would end up in a configuration file.

    Args:
        base_url: of the API, mostly ending in ``/v1``.
        model: as the server names it.
        prompt: what is asked; ``{caption}`` stands for the prompt of the picture.
        patterns: regular expressions with one group, the number. The mark is the mean over the patterns of each one's
            last match after the think text; all have to match.
        fields: keys of a JSON object in the answer, read in place of ``patterns``.
        scale: lowest and highest number, both included; marks are mapped to 0..1.
        max_missing_share: share of a call's pictures without a mark above which the run stops.
        max_new_tokens: longest answer in tokens.
        name: under which values are logged.
        **options: others of :class:`~sdg.engines.endpoint.EndpointEngine`: ``concurrency``, ``temperature``,
            ``timeout``, ``max_retries``, ``extra_body``.

    Raises:
        ValueError: for a prompt without ``{caption}``, a pattern without exactly one group, an empty scale.

    Example:
        >>> JudgeReward("http://localhost:8000/v1", "CodeGoat24/UnifiedReward-2.0-qwen3vl-8b").read(
        ...     "Alignment Score (1-5): 5\\nCoherence Score (1-5): 3\\nStyle Score (1-5): 4"
        ... )
        0.75
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        prompt: str = JUDGE_PROMPT,
        patterns: str | Sequence[str] = JUDGE_PATTERNS,
        fields: str | Sequence[str] = (),
        scale: tuple[float, float] = (1.0, 5.0),
        max_missing_share: float = 0.25,
        max_new_tokens: int = 1024,
        name: str = "judge",
        **options: Any,
    ) -> None:
        from sdg.engines.endpoint import EndpointEngine

        if "api_key" in options:
            raise ValueError("api_key is not an argument: set SDG_API_KEY, or the host's own variable")
        if "{caption}" not in prompt:
            raise ValueError("prompt holds no {caption}: the judge would not know what the picture should show")
        if not scale[0] < scale[1]:
            raise ValueError(f"scale={scale} is empty: give the lowest and the highest number, such as (1, 5)")
        if not 0 <= max_missing_share < 1:
            raise ValueError(f"max_missing_share={max_missing_share} is outside 0..1 (1 itself would never stop)")
        self.fields = (fields,) if isinstance(fields, str) else tuple(fields)
        self.patterns = [re.compile(p, re.IGNORECASE) for p in ([patterns] if isinstance(patterns, str) else patterns)]
        for pattern in self.patterns:
            if pattern.groups != 1:
                raise ValueError(f"pattern {pattern.pattern!r} has {pattern.groups} groups; one is the number")
        if not self.fields and not self.patterns:
            raise ValueError("neither patterns nor fields say where the mark stands in an answer")
        self.__name__ = name
        self.prompt, self.scale, self.max_missing_share = prompt, scale, max_missing_share
        self.asked = self.missing = 0
        self.engine = EndpointEngine(base_url, model, max_new_tokens=max_new_tokens, structured=False, **options)

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], **columns: Any) -> list[float]:
        """Marks in 0..1. ``log_metric`` among the columns, as TRL hands it out, is told the share without a mark.

        Raises:
            ValueError: where there are not as many prompts as images.
            RewardError: where more than ``max_missing_share`` have no mark.
            EndpointError: where the server answers nothing at all, or refuses the key.
        """
        _as_many(images, prompts)
        answers = self.engine.generate(images, [self.prompt.replace("{caption}", prompt) for prompt in prompts])
        marks: list[float | None] = []
        reasons: list[str] = []
        for answer in answers:
            mark = None if answer.error else self.read(answer.text)
            if mark is None:
                reasons.append(answer.error or f"no mark in {answer.text[-80:]!r}")
            marks.append(mark)
        self.asked += len(marks)
        self.missing += len(reasons)
        if callable(log_metric := columns.get("log_metric")) and marks:
            log_metric(f"{self.__name__}/missing", len(reasons) / len(marks))
        if reasons:
            said = f"{len(reasons)} of {len(marks)} answers of {self.engine.name} hold no mark, the first: {reasons[0]}"
            if len(reasons) > self.max_missing_share * len(marks):
                raise RewardError(
                    f"{said}; mend the judge, or what reads it (prompt, patterns, fields, scale), or allow more with "
                    f"max_missing_share above {self.max_missing_share:g}"
                )
            log.warning("%s; they get the mean of their prompt", said)
        return _filled(marks, prompts)

    def read(self, text: str) -> float | None:
        """The mark in 0..1 that an answer gives, or None where it gives none within the scale."""
        text = text.rpartition("</think>")[2]
        found = _json_numbers(text, self.fields) if self.fields else _matches(text, self.patterns)
        low, high = self.scale
        if not found or not all(low <= number <= high for number in found):
            return None
        return (sum(found) / len(found) - low) / (high - low)


def _as_many(images: Sequence[Image.Image], prompts: Sequence[str]) -> None:
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts: every image needs its own prompt")


def _filled(marks: Sequence[float | None], prompts: Sequence[str]) -> list[float]:
    """Marks with those of the same prompt's mean in the gaps, or the mean of all where the prompt has none."""
    of_prompt: dict[str, list[float]] = defaultdict(list)
    for mark, prompt in zip(marks, prompts, strict=True):
        if mark is not None:
            of_prompt[prompt].append(mark)
    known = [mark for mark in marks if mark is not None]
    full = []
    for mark, prompt in zip(marks, prompts, strict=True):
        if mark is None:
            others = of_prompt[prompt] or known
            mark = sum(others) / len(others)
        full.append(mark)
    return full


def _matches(text: str, patterns: Sequence[re.Pattern[str]]) -> list[float]:
    """The number of each pattern's last match; empty where one does not match or matches no number."""
    found = []
    for pattern in patterns:
        numbers = pattern.findall(text)
        try:
            found.append(float(numbers[-1]))
        except (IndexError, ValueError):
            return []
    return found


def _json_numbers(text: str, fields: Sequence[str]) -> list[float]:
    """The numbers under ``fields`` of the last JSON object that holds them all; empty where there is none."""
    for record in _objects(text):
        values = [record.get(field) for field in fields]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return [float(value) for value in values if value is not None]
    return []


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a text, from the last to the first, objects inside objects included."""
    for brace in reversed(list(re.finditer("{", text))):
        try:
            record = json.JSONDecoder().raw_decode(text, brace.start())[0]
        except (ValueError, RecursionError):
            continue
        yield record
