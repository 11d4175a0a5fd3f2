"""The detector: a picture and its caption in, a set of defects out."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

from PIL import Image

from sdg.boxes import BoxOrder
from sdg.defects import DefectSet
from sdg.engines.base import SETTINGS_FILE, Engine, Generation
from sdg.engines.flow import answered
from sdg.engines.images import ImageError, fit, open_image
from sdg.prompts import PROMPTS, Prompt, as_prompt
from sdg.response import ResponseFormatError, parse_response

FULL_MODEL = "P1n3/sdg-detector-grpo"
"""The released checkpoint for pictures of any generator: what to use where an embedded one does not fit."""


class SDGDetector:
    """Finds what is wrong with a generated picture: where, what, why and how much.

    Args:
        engine: where the text comes from.
        prompt: the instruction: a name, a template with ``{caption}``, or a :class:`~sdg.prompts.Prompt`.
        box_order: the order of coordinates that the model writes; some write ``"yxyx"``. None is the prompt's.
        made_for: the world that the checkpoint was trained on, in words, or None for pictures of any kind; ``info`` of
            results carries it.

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
    ):
        self.engine = engine
        self.prompt = as_prompt(prompt)
        self.box_order = box_order or self.prompt.box_order
        self.made_for = made_for

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
        prompt: str | Prompt | None = None,
        box_order: BoxOrder | None = None,
        constrained: bool = False,
        max_new_tokens: int | None = None,
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
            prompt: the instruction: a name, a template with ``{caption}``, or a :class:`~sdg.prompts.Prompt`.
            box_order: order of coordinates that the model writes: ``"xyxy"`` or ``"yxyx"``.
            constrained: let the model write nothing but valid answers (needs xgrammar).
            max_new_tokens: longest answer, in tokens.

        Raises:
            CheckpointError: saying what was tried and what to do.
        """
        from sdg.engines.checkpoints import HubOptions, read_settings
        from sdg.engines.constrained import MIN_NEW_TOKENS
        from sdg.engines.transformers import MAX_NEW_TOKENS, TransformersEngine

        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download)
        settings = read_settings(name_or_path, hub)
        if adapter is not None:
            settings |= read_settings(adapter, replace(hub, revision=None))
        if max_new_tokens is None:
            limit = settings.get("max_new_tokens", MAX_NEW_TOKENS)
            max_new_tokens = max(limit, MIN_NEW_TOKENS) if constrained else limit
        chosen = as_prompt(settings if prompt is None else prompt)
        engine = TransformersEngine.from_pretrained(
            name_or_path,
            hub=hub,
            device_map=device_map,
            dtype=dtype,
            quantization_config=quantization_config,
            adapter=adapter,
            constrained=constrained,
            max_new_tokens=max_new_tokens,
        )
        order = box_order or settings.get("box_order")
        return cls(engine, chosen, box_order=order, made_for=settings.get("made_for"))

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
        from sdg.engines.endpoint import EndpointEngine

        settings: dict[str, Any] = {}
        if checkpoint is not None or os.path.isdir(model):
            from sdg.engines.checkpoints import HubOptions, read_settings

            settings = read_settings(checkpoint or model, HubOptions())
        chosen = as_prompt(settings if prompt is None else prompt)
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
        self, images: list[Any] | tuple[Any, ...], captions: Iterable[str | None] | None = None, *, batch_size: int = 8
    ) -> list[DefectSet]: ...
    @overload
    def __call__(self, images: Any, captions: str | None = None, *, batch_size: int = 8) -> DefectSet: ...
    def __call__(self, images: Any, captions: Any = None, *, batch_size: int = 8) -> DefectSet | list[DefectSet]:
        """Detect the defects of one picture, or of a list of pictures.

        Args:
            images: one picture or a list: PIL image, path, bytes of a file, or array (see
                :func:`~sdg.engines.images.open_image`). Addresses are not fetched.
            captions: what the picture was made from, or one caption a picture. Without one only artifacts are asked
                for, and misalignments are not reported.
            batch_size: pictures that the model answers at a time.

        Returns:
            one :class:`~sdg.defects.DefectSet` a picture. An answer that cannot be read gives an empty set with
            ``parse_error`` and ``raw``: that is a failure of the model, not a clean picture.

        Raises:
            ImageError: for a picture that cannot be used. :meth:`iter` hands out what was ready before it, or goes on.
        """
        if not isinstance(images, list | tuple):
            return next(self.iter([images], [captions], batch_size=1))
        texts = [caption for _, caption in _pairs(images, captions)]
        # Prompts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(images)), key=lambda i: len(texts[i] or ""))
        found = self.iter([images[i] for i in order], [texts[i] for i in order], batch_size=batch_size)
        by_index = dict(zip(order, found, strict=True))
        return [by_index[i] for i in range(len(images))]

    def iter(
        self,
        images: Iterable[Any],
        captions: Iterable[str | None] | None = None,
        *,
        batch_size: int = 8,
        on_error: Literal["raise", "record"] = "raise",
    ) -> Iterator[DefectSet]:
        """Detect the defects of many pictures, batch by batch, in order; each result is handed out as it is ready.

        Args:
            images: pictures; an iterator is read a batch at a time.
            captions: one a picture, or None.
            batch_size: pictures that the model answers at a time.
            on_error: what a picture that cannot be used does: ``"raise"`` after the results before it, or
                ``"record"`` it as an empty set with ``parse_error`` and go on.

        Yields:
            one set a picture, in order.

        Raises:
            ImageError: with ``on_error="raise"``.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if on_error not in ("raise", "record"):
            raise ValueError(f"on_error={on_error!r} is neither 'raise' nor 'record'")
        return self._results(_pairs(images, captions), batch_size, on_error)

    def stream(self, image: Any, caption: str | None = None) -> DetectionStream:
        """Detect the defects of one picture and hand out the model's text as it is written.

        Returns:
            an iterator of pieces of text; its ``result`` is the set, once the text is complete.

        Raises:
            ImageError: for a picture that cannot be used.
        """
        return DetectionStream(self, open_image(image), caption)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the checkpoint as a plain transformers folder, with the prompt and settings beside it.

        Raises:
            ValueError: where the model is not in this process, or its weights cannot be written as one checkpoint.
        """
        save = getattr(self.engine, "save_pretrained", None)
        if save is None:
            raise ValueError(f"{self.engine.name} is not in this process: there are no weights to save")
        save(folder)
        settings = {
            "prompt": self.prompt.template,
            "prompt_without_caption": self.prompt.template_without_caption,
            "box_order": self.box_order,
            "max_new_tokens": getattr(self.engine, "max_new_tokens", None),
            "made_for": self.made_for,
        }
        text = json.dumps({k: v for k, v in settings.items() if v is not None}, indent=2, ensure_ascii=False)
        Path(folder, SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | bool | None = None) -> str:
        """Upload the checkpoint to a model repository of the Hub, made where it does not exist.

        Args:
            repo_id: ``"owner/name"``.
            private: of a new repository; None is the account's default.
            token: access token; None takes the one of ``hf auth login``.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload SDG detector"))

    def _results(self, pairs: Iterable[tuple[Any, str | None]], batch_size: int, on_error: str) -> Iterator[DefectSet]:
        for image, caption, answer in answered(self.engine, pairs, self.prompt.format, batch_size, on_error == "raise"):
            if answer is not None and isinstance(image, Image.Image):
                yield self._read(answer, image, caption)
            elif isinstance(image, ImageError) and on_error == "raise":
                raise image
            else:
                yield DefectSet(caption=caption, parse_error=str(image), info={"model": self.engine.name})

    def _read(self, answer: Generation, image: Image.Image, caption: str | None) -> DefectSet:
        """The set that a model's answer names."""
        info: dict[str, Any] = {
            "model": self.engine.name,
            "seconds": answer.seconds,
            "prompt_tokens": answer.prompt_tokens,
            "new_tokens": answer.new_tokens,
            "finished": answer.finished,
            "image_size": image.size,
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
        return replace(found, caption=caption, raw=answer.text, info={**found.info, **info})


class DetectionStream(Iterator[str]):
    """The text of one detection as it is written, and the set that it names.

    Example:
        >>> stream = detector.stream(image, caption)  # doctest: +SKIP
        >>> for piece in stream: print(piece, end="")  # doctest: +SKIP
        >>> stream.result  # doctest: +SKIP
    """

    def __init__(self, detector: SDGDetector, image: Image.Image, caption: str | None):
        self._detector, self._image, self._caption = detector, image, caption
        self._started = time.perf_counter()
        self._answer = Generation("", None, None, 0.0, finished=False)
        self._pieces = detector.engine.stream(fit(image), detector.prompt.format(caption))

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self._answer = end.value
            raise
        text, seconds = self._answer.text + piece, time.perf_counter() - self._started
        self._answer = replace(self._answer, text=text, seconds=seconds)
        return piece

    def close(self) -> None:
        """Stop the model."""
        self._pieces.close()

    @property
    def result(self) -> DefectSet:
        """The set that the text so far names; before the end, of the objects that are complete."""
        return self._detector._read(self._answer, self._image, self._caption)


def _pairs(images: Iterable[Any], captions: Any) -> Iterable[tuple[Any, str | None]]:
    """Each picture with its caption."""
    if captions is None:
        return ((image, None) for image in images)
    if isinstance(captions, str):
        raise ValueError(f"captions={captions!r:.60} is one caption for many pictures: give a list, one a picture")
    if isinstance(images, Sized) and isinstance(captions, Sized) and len(images) != len(captions):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    return zip(images, captions, strict=True)


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
