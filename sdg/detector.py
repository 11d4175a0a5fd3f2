"""The detector: a picture and its caption in, a set of defects out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from typing import Any, Literal, overload

from PIL import Image

from sdg.defects import DefectSet
from sdg.engines.base import Engine, Generation
from sdg.engines.images import ImageError, fit, open_image
from sdg.prompts import Prompt, as_prompt
from sdg.response import ResponseFormatError, parse_response


class SDGDetector:
    """Finds what is wrong with a generated picture: where, what, why and how much.

    Args:
        engine: where the text comes from.
        prompt: the instruction: a name, a template with ``{caption}``, or a :class:`~sdg.prompts.Prompt`.
        made_for: the world that the checkpoint was trained on, in words, or None for pictures of any kind.

    Example:
        >>> detector = SDGDetector.from_pretrained("sdg-tiny")  # doctest: +SKIP
        >>> detector("picture.png", "a red car beside a tree").artifacts  # doctest: +SKIP
    """

    def __init__(self, engine: Engine, prompt: str | Prompt | None = None, *, made_for: str | None = None):
        self.engine = engine
        self.prompt = as_prompt(prompt)
        self.made_for = made_for

    @classmethod
    def from_model(
        cls,
        model: Any,
        processor: Any,
        *,
        prompt: str | Prompt | None = None,
        max_new_tokens: int | None = None,
        name: str | None = None,
    ) -> SDGDetector:
        """A detector on a transformers model that is in memory already, as training evaluates it.

        Args:
            model: an image-text-to-text model, on its device.
            processor: its processor.
            prompt: as in :class:`SDGDetector`.
            max_new_tokens: longest answer, in tokens.
            name: how results name the model.
        """
        from sdg.engines.transformers import MAX_NEW_TOKENS, TransformersEngine

        limit = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        return cls(TransformersEngine(model, processor, max_new_tokens=limit, name=name), prompt)

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
        return self._batches(_pairs(images, captions), batch_size, on_error)

    def _batches(self, pairs: Iterable[tuple[Any, str | None]], batch_size: int, on_error: str) -> Iterator[DefectSet]:
        batch: list[tuple[Image.Image | ImageError, str | None]] = []
        for source, caption in pairs:
            try:
                batch.append((open_image(source), caption))
            except ImageError as error:
                if on_error == "raise":
                    yield from self._detect(batch)
                    raise
                batch.append((error, caption))
            if len(batch) == batch_size:
                yield from self._detect(batch)
                batch = []
        yield from self._detect(batch)

    def _detect(self, batch: list[tuple[Image.Image | ImageError, str | None]]) -> Iterator[DefectSet]:
        usable = [(image, caption) for image, caption in batch if isinstance(image, Image.Image)]
        images = [fit(image) for image, _ in usable]
        prompts = [self.prompt.format(caption) for _, caption in usable]
        answers = iter(self.engine.generate(images, prompts) if usable else ())
        for image, caption in batch:
            if isinstance(image, ImageError):
                yield DefectSet(caption=caption, parse_error=str(image), info={"model": self.engine.name})
            else:
                yield self._read(next(answers), image, caption)

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
        try:
            found = parse_response(answer.text)
        except ResponseFormatError as error:
            cut = "" if answer.finished else f"; the answer was cut off after {answer.new_tokens} tokens"
            return DefectSet(caption=caption, parse_error=f"{error}{cut}", raw=answer.text, info=info)
        if not (caption or "").strip() and found.misalignments:
            info["dropped_misalignments"] = len(found.misalignments)
            found = replace(found, defects=found.artifacts)
        return replace(found, caption=caption, raw=answer.text, info={**found.info, **info})


def _pairs(images: Iterable[Any], captions: Any) -> Iterable[tuple[Any, str | None]]:
    """Each picture with its caption."""
    if captions is None:
        return ((image, None) for image in images)
    if isinstance(captions, str):
        raise ValueError(f"captions={captions!r:.60} is one caption for many pictures: give a list, one a picture")
    if isinstance(images, Sized) and isinstance(captions, Sized) and len(images) != len(captions):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    return zip(images, captions, strict=True)
