"""The detector: a picture and its caption in, a set of defects out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

from PIL import Image

from sdg.boxes import BoxOrder
from sdg.calibration.trust import Trust, at_least
from sdg.defects import DefectSet
from sdg.detector.saving import Saves
from sdg.detector.stream import DetectionStream
from sdg.engines.base import Engine, Generation
from sdg.engines.flow import answered, pairs
from sdg.engines.images import ImageError, fit, open_image
from sdg.prompts import PROMPTS, Prompt, as_prompt
from sdg.response import ResponseFormatError, parse_response

FULL_MODEL = "P1n3/sdg-detector-grpo"
"""The released checkpoint for pictures of any generator: what to use where an embedded one does not fit."""


class SDGDetector(Saves):
    """Finds what is wrong with a generated picture: where, what, why and how much.

    Args:
        engine: where the text comes from.
        prompt: the instruction: a name, a template with ``{caption}``, or a :class:`~sdg.prompts.Prompt`.
        box_order: the order of coordinates that the model writes; some write ``"yxyx"``. None is the prompt's.
        made_for: the world that the checkpoint was trained on, in words, or None for pictures of any kind; ``info`` of
            results carries it.
        trust: the checkpoint's calibration, which gives each defect its ``confidence``, and its world, which tells
            pictures that it was not made for; ``info`` of results says ``calibrated`` and ``out_of_world``.
        min_confidence: defects below it are left out; 0 keeps all.

    Example:
        >>> detector = SDGDetector.from_pretrained("sdg-tiny")  # doctest: +SKIP
        >>> detector("picture.png", "a red car beside a tree").artifacts  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: Engine,
        prompt: str | Prompt | None = None,
        *,
        box_order: BoxOrder | None = None,
        made_for: str | None = None,
        trust: Trust | None = None,
        min_confidence: float = 0.0,
    ):
        self.engine = engine
        self.prompt = as_prompt(prompt)
        self.box_order = box_order or self.prompt.box_order
        self.made_for = made_for
        self.trust = trust or Trust()
        self._settings: dict[str, Any] = {}  # of the checkpoint, what is not asked about here included
        self._folder: Path | None = None  # of the checkpoint, unless an adapter made another of it
        self.min_confidence = self._bar(min_confidence)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "sdg-tiny",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device_map: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
        adapter: str | os.PathLike[str] | None = None,
        adapter_revision: str | None = None,
        calibration: str | os.PathLike[str] | None = None,
        prompt: str | Prompt | None = None,
        box_order: BoxOrder | None = None,
        constrained: bool = False,
        answer_only: bool = False,
        max_new_tokens: int | None = None,
        min_confidence: float = 0.0,
    ) -> SDGDetector:
        """A detector on a Qwen3-VL-style checkpoint.

        Prompt, order of coordinates and length of answers are the checkpoint's own (its ``sdg_config.json``, where it
        has one) unless they are given here.

        Args:
            name_or_path: the embedded ``"sdg-tiny"``, a local folder, or a Hub id such as ``"P1n3/sdg-detector-grpo"``.
            revision: branch, tag or commit of the Hub repository.
            token: access token of the Hub; True takes the one of ``hf auth login``.
            cache_dir: where downloads are kept.
            local_files_only: never ask the network.
            force_download: download again what is in the cache.
            device_map: as in transformers; None is the GPU where there is one.
            dtype: of the weights, for example ``"bfloat16"``; None chooses by what the machine is good at.
            quantization_config: a ``BitsAndBytesConfig``, its dictionary, or ``"4bit"`` / ``"8bit"``.
            adapter: folder or Hub id of a PEFT adapter to put on the checkpoint.
            adapter_revision: branch, tag or commit of the adapter's repository.
            calibration: folder or Hub id of a calibration of this checkpoint, such as ``sdg calibrate --out`` writes;
                None is the checkpoint's own.
            prompt: the instruction: a name, a template with ``{caption}``, a :class:`~sdg.prompts.Prompt`, or a folder
                or Hub id whose ``sdg_config.json`` holds one.
            box_order: order of coordinates that the model writes: ``"xyxy"`` or ``"yxyx"``.
            constrained: let the model write nothing but valid answers (needs xgrammar).
            answer_only: no think text, for rewards and filters that cannot wait: quicker, less often right, and without
                confidences.
            max_new_tokens: longest answer, in tokens.
            min_confidence: as in :class:`SDGDetector`.

        Raises:
            CheckpointError: saying what was tried and what to do.
        """
        from sdg.detector.sources import asked_prompt
        from sdg.engines import places
        from sdg.engines.constrained import MIN_NEW_TOKENS
        from sdg.engines.transformers import MAX_NEW_TOKENS, TransformersEngine
        from sdg.hub import HubOptions

        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download)
        others = replace(hub, revision=None)  # of repositories that have revisions of their own
        folder = places.checkpoint_folder(name_or_path, hub)
        hub = replace(hub, force_download=False)  # it was, a moment ago
        settings = places.read_settings(folder)
        added = None if adapter is None else places.adapter_folder(adapter, replace(others, revision=adapter_revision))
        if calibration is not None:
            trust = places.calibration_of(calibration, others)
        else:  # an adapter makes another model of it: the confidence that it was given before no longer fits
            trust = places.read_trust(added or folder)
        if answer_only:  # what the model knew of its think text was part of what was calibrated
            trust = replace(trust, calibration=None)
        if added is not None:
            settings |= places.read_settings(added)
        chosen, settings = asked_prompt(prompt, settings, others)
        if max_new_tokens is None:
            limit = settings.get("max_new_tokens", MAX_NEW_TOKENS)
            max_new_tokens = max(limit, MIN_NEW_TOKENS) if constrained else limit
        engine = TransformersEngine.from_pretrained(
            folder,
            name=os.fspath(name_or_path),
            hub=hub,
            device_map=device_map,
            dtype=dtype,
            quantization_config=quantization_config,
            adapter=added,
            adapter_name=None if adapter is None else os.fspath(adapter),
            constrained=constrained,
            answer_only=answer_only,
            max_new_tokens=max_new_tokens,
        )
        detector = cls(
            engine,
            chosen,
            box_order=box_order or settings.get("box_order"),
            made_for=settings.get("made_for"),
            trust=trust,
            min_confidence=min_confidence,
        )
        detector._settings = settings
        detector._folder = folder if added is None else None
        return detector

    @classmethod
    def from_model(
        cls,
        model: Any,
        processor: Any,
        *,
        prompt: str | Prompt | None = None,
        constrained: bool = False,
        max_new_tokens: int | None = None,
        name: str | None = None,
    ) -> SDGDetector:
        """A detector on a transformers model that is in memory already, as training evaluates it.

        Args:
            model: an image-text-to-text model, on its device.
            processor: its processor.
            prompt: as in :class:`SDGDetector`.
            constrained: let the model write nothing but valid answers (needs xgrammar).
            max_new_tokens: longest answer, in tokens.
            name: how results name the model.
        """
        from sdg.engines.transformers import MAX_NEW_TOKENS, TransformersEngine

        limit = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        engine = TransformersEngine(model, processor, max_new_tokens=limit, constrained=constrained, name=name)
        return cls(engine, prompt)

    @classmethod
    def from_endpoint(
        cls,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        prompt: str | Prompt | None = None,
        box_order: BoxOrder | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        structured: bool | None = None,
        **options: Any,
    ) -> SDGDetector:
        """A detector on a vision-language model behind an OpenAI-compatible server (needs ``sdg-t2i[endpoint]``).

        Args:
            base_url: of the API, such as ``"http://localhost:8000/v1"``.
            model: as the server names it.
            api_key: None takes ``SDG_API_KEY`` from the environment, or the usual variable of a known host.
            concurrency: requests under way at a time; pictures of a list wait for no batch, whatever its size.
            prompt: as in :class:`SDGDetector`; ``"zero-shot"`` is for models that were not trained for the task, and
                ``"zero-shot-yxyx"`` for those, such as Gemini, that write boxes with y first.
            box_order: order of coordinates that the model writes; None is the one that the prompt asks for.
            checkpoint: embedded name, folder or Hub id whose settings (prompt, order, longest answer) the model was
                trained with; ``model`` itself, where that is a folder.
            structured: ask the server for JSON by a schema; None asks for it with the zero-shot prompts.
            **options: others of :class:`~sdg.engines.endpoint.EndpointEngine`: ``max_new_tokens``, ``temperature``,
                ``timeout``, ``max_retries``, ``extra_body``.

        Raises:
            ValueError: for an argument out of range. Whether the server answers is known with the first picture, or
                by ``detector.engine.check()``: :class:`~sdg.engines.base.EndpointError`.
        """
        from sdg.detector.sources import asked_prompt
        from sdg.engines.endpoint import EndpointEngine
        from sdg.hub import HubOptions

        settings: dict[str, Any] = {}
        if checkpoint is not None or os.path.isdir(model):
            from sdg.engines.places import read_settings, settings_folder

            settings = read_settings(settings_folder(checkpoint or model, HubOptions()))
        chosen, settings = asked_prompt(prompt, settings, HubOptions())
        if "max_new_tokens" in settings:
            options.setdefault("max_new_tokens", settings["max_new_tokens"])
        if structured is None:
            structured = chosen in (PROMPTS["zero-shot"], PROMPTS["zero-shot-yxyx"])
        engine = EndpointEngine(
            base_url, model, api_key=api_key, concurrency=concurrency, structured=structured, **options
        )
        order = box_order or settings.get("box_order")
        return cls(engine, chosen, box_order=order, made_for=settings.get("made_for"))

    @overload
    def __call__(
        self,
        images: list[Any] | tuple[Any, ...],
        captions: Iterable[str | None] | None = None,
        *,
        batch_size: int = 8,
        min_confidence: float | None = None,
    ) -> list[DefectSet]: ...
    @overload
    def __call__(
        self, images: Any, captions: str | None = None, *, batch_size: int = 8, min_confidence: float | None = None
    ) -> DefectSet: ...
    def __call__(
        self, images: Any, captions: Any = None, *, batch_size: int = 8, min_confidence: float | None = None
    ) -> DefectSet | list[DefectSet]:
        """Detect the defects of one picture, or of a list of pictures.

        Args:
            images: one picture or a list: PIL image, path, bytes of a file, or array (see
                :func:`~sdg.engines.images.open_image`). Addresses are not fetched.
            captions: what the picture was made from, or one caption a picture. Without one only artifacts are asked
                for, and misalignments are not reported.
            batch_size: pictures that the model answers at a time.
            min_confidence: defects below it are left out; None is the detector's own.

        Returns:
            one :class:`~sdg.defects.DefectSet` a picture. An answer that cannot be read gives an empty set with
            ``parse_error`` and ``raw``: that is a failure of the model, not a clean picture.

        Raises:
            ImageError: for a picture that cannot be used. :meth:`iter` hands out what was ready before it, or goes on.
        """
        if not isinstance(images, list | tuple):
            return next(self.iter([images], [captions], batch_size=1, min_confidence=min_confidence))
        texts = [caption for _, caption in pairs(images, captions)]
        # Prompts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(images)), key=lambda i: len(texts[i] or ""))
        some = [images[i] for i in order], [texts[i] for i in order]
        found = self.iter(*some, batch_size=batch_size, min_confidence=min_confidence)
        by_index = dict(zip(order, found, strict=True))
        return [by_index[i] for i in range(len(images))]

    def iter(
        self,
        images: Iterable[Any],
        captions: Iterable[str | None] | None = None,
        *,
        batch_size: int = 8,
        on_error: Literal["raise", "record"] = "raise",
        min_confidence: float | None = None,
    ) -> Iterator[DefectSet]:
        """Detect the defects of many pictures, batch by batch, in order; each result is handed out as it is ready.

        Args:
            images: pictures; an iterator is read a batch at a time.
            captions: one a picture, or None.
            batch_size: pictures that the model answers at a time.
            on_error: what a picture that cannot be used does: ``"raise"`` after the results before it, or
                ``"record"`` it as an empty set with ``parse_error`` and go on.
            min_confidence: as in a call.

        Yields:
            one set a picture, in order.

        Raises:
            ImageError: with ``on_error="raise"``.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if on_error not in ("raise", "record"):
            raise ValueError(f"on_error={on_error!r} is neither 'raise' nor 'record'")
        return self._results(pairs(images, captions), batch_size, on_error, self._bar(min_confidence))

    def stream(self, image: Any, caption: str | None = None, *, min_confidence: float | None = None) -> DetectionStream:
        """Detect the defects of one picture and hand out the model's text as it is written.

        Returns:
            an iterator of pieces of text; its ``result`` is the set, once the text is complete.

        Raises:
            ImageError: for a picture that cannot be used.
        """
        picture, bar = open_image(image), self._bar(min_confidence)
        pieces = self.engine.stream(fit(picture), self.prompt.format(caption))
        return DetectionStream(pieces, lambda answer: self.read(answer, picture, caption, bar))

    def _bar(self, min_confidence: float | None) -> float:
        """The confidence below which defects are left out, checked."""
        bar = self.min_confidence if min_confidence is None else min_confidence
        if not 0 <= bar <= 1:
            raise ValueError(f"min_confidence={bar!r} is outside 0..1")
        if bar and self.trust.calibration is None:
            raise ValueError(
                f"min_confidence={bar:g} needs confidences, and {self.engine.name} has no calibration: write one with"
                " `sdg calibrate` (docs/confidence.md)"
            )
        return bar

    def _results(
        self, pictures: Iterable[tuple[Any, str | None]], batch_size: int, on_error: str, bar: float
    ) -> Iterator[DefectSet]:
        write, stop = self.prompt.format, on_error == "raise"
        for image, caption, answer in answered(self.engine, pictures, write, batch_size, stop):
            if answer is not None and isinstance(image, Image.Image):
                yield self.read(answer, image, caption, bar)
            elif isinstance(image, ImageError) and on_error == "raise":
                raise image
            else:
                yield DefectSet(caption=caption, parse_error=str(image), info={"model": self.engine.name})

    def read(self, answer: Generation, image: Image.Image, caption: str | None, bar: float = 0.0) -> DefectSet:
        """The set that a model's answer names.

        Args:
            answer: of the engine.
            image: the picture.
            caption: of the picture.
            bar: confidence below which defects are left out.
        """
        info: dict[str, Any] = {
            "model": self.engine.name,
            "seconds": answer.seconds,
            "prompt_tokens": answer.prompt_tokens,
            "new_tokens": answer.new_tokens,
            "finished": answer.finished,
            "image_size": image.size,
            **self.trust.info(answer.evidence),
        }
        if self.made_for is not None:
            info["made_for"] = self.made_for
        if answer.error is not None:
            info["error"] = answer.error
            return DefectSet(caption=caption, parse_error=answer.error, raw=answer.text or None, info=info)
        try:
            found = parse_response(answer.text, order=self.box_order)
        except ResponseFormatError as error:
            after = f" after {answer.new_tokens} tokens" if answer.new_tokens else ""
            cut = "" if answer.finished else f"; the answer was cut off{after}"
            return DefectSet(caption=caption, parse_error=f"{error}{cut}", raw=answer.text, info=info)
        if not (caption or "").strip() and found.misalignments:
            info["dropped_misalignments"] = len(found.misalignments)
            found = replace(found, defects=found.artifacts)
        found = replace(found, caption=caption, raw=answer.text, info=info)
        return at_least(self.trust.weigh(found, answer.evidence, self.box_order), bar)


def load_detector(
    model: str = "sdg-tiny", endpoint: str | None = None, prompt: str | None = None, **options: Any
) -> SDGDetector:
    """A detector by name, for the command line and the page.

    Args:
        model: embedded name, folder or Hub id; with ``endpoint``, the model as that server names it.
        endpoint: address of an OpenAI-compatible API; it is asked whether it is there and takes the key.
        prompt: as in :class:`SDGDetector`; None or blank is the checkpoint's own.
        **options: of :meth:`SDGDetector.from_pretrained` or :meth:`SDGDetector.from_endpoint`.

    Raises:
        OSError: ``CheckpointError`` or ``EndpointError``, saying what was tried and what to do.
    """
    if not endpoint:
        return SDGDetector.from_pretrained(model, prompt=prompt or None, **options)
    detector = SDGDetector.from_endpoint(endpoint, model, prompt=prompt or None, **options)
    detector.engine.check()  # type: ignore[attr-defined]
    return detector
