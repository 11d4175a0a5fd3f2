"""An editor behind a server that speaks the OpenAI images protocol: hosted ones, vLLM-Omni, SGLang.

The protocol knows no seeds: asked twice, a server gives two pictures, and only some take a field of their own for it.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from sdg.engines.base import EndpointError
from sdg.engines.images import ImageError, fitted_size, open_image
from sdg.refine.editors import ASPECT_TOLERANCE, SECOND_PICTURE, EditError, Task, candidate

try:
    from sdg.engines.server import Server, openai
except ImportError as error:  # pragma: no cover - the sentence is all there is to it
    raise ImportError("an editor behind a server needs the openai SDK: pip install 'sdg-t2i[refine]'") from error

Size = tuple[int, int]
Mode = Literal["edit", "masked", "inpaint"]

GPT_IMAGE_SIZES: tuple[Size, ...] = ((1024, 1024), (1536, 1024), (1024, 1536))
"""What OpenAI's gpt-image models draw, for ``sizes=``."""

LONGER_SIDE = 1536
"""Pictures are sent with at most this many pixels on the longer side."""

REFUSALS = ("moderation_blocked", "content_policy_violation")
"""Codes of an error by which servers say that they will not draw this."""


class EndpointEditor(Server):
    """A model of a server with the OpenAI images protocol as an :class:`~sdg.refine.editors.Editor`.

    One request for each candidate. Timed-out and refused connections, 408, 409, 429 and 5xx are tried again after a
    jittered, growing wait, or after what ``Retry-After`` says. Pictures are read from the answer itself, as base64: an
    address in it is not fetched. Calls are safe from any thread, one with a running event loop included.

    Args:
        base_url: of the API, mostly ending in ``/v1``.
        model: as the server names it; results name it so, too.
        api_key: None takes the variable ``SDG_API_KEY``, then the host's own, as
            :data:`~sdg.engines.server.KEYS_OF_HOSTS` has it.
        mode: ``"edit"`` sends the task's instruction, and its overlay as second picture; ``"masked"`` sends the mask
            as well; ``"inpaint"`` sends the mask and, in place of the instruction, the task's description of the
            picture.
        overlay: False sends no second picture, for servers that take one only.
        paste: keep only what lies in the task's mask; None does so where the mask is sent. Servers take the mask for
            advice: most draw the whole picture anew.
        sizes: the (width, height) that the model draws, where it does not draw what it is sent: :data:`GPT_IMAGE_SIZES`
            for OpenAI's. The picture is put in the middle of the size that it fills best, its edges continued, and
            cut out of the result.
        send_seed: send each candidate's seed as the field ``seed``, which vLLM-Omni takes. Without it seeds mean
            nothing here.
        concurrency: requests under way at a time, over all calls.
        timeout: seconds that the server may be silent, in each try.
        max_retries: further tries of a request.
        extra_body: more fields of the request, for example ``{"quality": "high"}``.

    Raises:
        ValueError: for a value out of range, and for a ``base_url`` that is none or that holds a key.
    """

    does = "edits"

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        mode: Mode = "edit",
        overlay: bool = True,
        paste: bool | None = None,
        sizes: Sequence[Size] | None = None,
        send_seed: bool = False,
        concurrency: int = 4,
        timeout: float = 300.0,
        max_retries: int = 5,
        extra_body: Mapping[str, Any] | None = None,
    ):
        super().__init__(
            base_url, model, api_key=api_key, concurrency=concurrency, timeout=timeout, max_retries=max_retries
        )
        if mode not in ("edit", "masked", "inpaint"):
            raise ValueError(f"mode={mode!r} is not 'edit', 'masked' or 'inpaint'")
        if sizes is not None and (not sizes or min(min(size) for size in sizes) < 1):
            raise ValueError(f"sizes={sizes!r} must be (width, height) pairs in pixels, or None")
        self.mode = mode
        self.overlay = overlay
        self.local = mode != "edit" if paste is None else paste
        self.sizes = sizes
        self.send_seed = send_seed
        self.extra_body = dict(extra_body or {})
        self._no_format = False  # whether the server refuses to be asked for base64, as those do that send nothing else

    def __call__(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        """A candidate for each seed, in order, or why there is none.

        Raises:
            EditError: for what would fail every candidate: no server, a refused key, no such model, nothing to ask for.
        """
        frame = _frame(task.image.size, self.sizes)
        request = self._request(task, frame)
        try:
            return self._results([self._start(self._edit(task, frame, request, seed)) for seed in seeds])
        except EndpointError as error:
            raise EditError(str(error)) from error

    def _request(self, task: Task, frame: _Frame) -> dict[str, Any]:
        """What all candidates are asked for with."""
        words = task.prompt if self.mode == "inpaint" else task.instruction
        if not words.strip():
            missing = "a caption to inpaint by" if self.mode == "inpaint" else "an instruction to follow"
            raise EditError(f"{self.name!r} needs {missing}, and the task has none")
        request: dict[str, Any] = {"model": self.name, "prompt": words, "image": _png("picture", frame.put(task.image))}
        if self.mode != "inpaint" and self.overlay and task.overlay is not None:
            request["image"] = [request["image"], _png("overlay", frame.put(task.overlay))]
            request["prompt"] = f"{SECOND_PICTURE} {words}"
        if self.mode != "edit":
            request["mask"] = _png("mask", frame.put_mask(task.image, task.mask))
        if self.sizes is not None:
            request["size"] = "{}x{}".format(*frame.size)
        return request

    async def _edit(self, task: Task, frame: _Frame, request: dict[str, Any], seed: int) -> Image.Image | EditError:
        async with self._slots:
            try:
                answer = await self._ask({**self.extra_body, **({"seed": seed} if self.send_seed else {})}, request)
                self._met = True
                return await asyncio.to_thread(lambda: candidate(frame.cut(_picture(answer)), task, self.local))
            except EditError as error:
                return error
            except Exception as error:  # a server may answer anything, and the SDK raises what it likes
                if isinstance(error, openai.APIStatusError) and error.code in REFUSALS:
                    return EditError(f"the content policy of {self.base_url} refuses this edit ({self._said(error)})")
                return EditError(await self._failure(error))

    async def _ask(self, more: dict[str, Any], request: dict[str, Any]) -> Any:
        """One request; again without asking for base64 where the server refuses to be asked."""
        form: dict[str, Any] = {} if self._no_format else {"response_format": "b64_json"}
        try:
            return await self._client.images.edit(**request, **form, extra_body=more)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if not form or "response_format" not in f"{error} {error.body}":
                raise
            self._no_format = True
        return await self._client.images.edit(**request, extra_body=more)


@dataclass(frozen=True)
class _Frame:
    """Where the picture lies in what is sent: ``box`` (x0, y0, x1, y1), in pixels of a canvas of ``size``."""

    size: Size
    box: tuple[int, int, int, int]

    def put(self, image: Image.Image) -> Image.Image:
        """The picture on the canvas, its edges continued to the rim."""
        return Image.fromarray(
            np.pad(np.asarray(self._scaled(image.convert("RGB"))), (*self._rims, (0, 0)), mode="edge")
        )

    def put_mask(self, image: Image.Image, mask: Image.Image | None) -> Image.Image:
        """The picture, transparent wherever the mask lets it change at all: so the protocol wants its masks."""
        # Box filters shrink a mask without losing a thin part, and its softened rim may change too.
        scaled = Image.new("L", self._inner, 255) if mask is None else self._scaled(mask, Image.Resampling.BOX)
        opaque = np.pad(np.where(np.asarray(scaled) > 0, 0, 255).astype(np.uint8), self._rims, constant_values=255)
        picture = self.put(image)
        picture.putalpha(Image.fromarray(opaque))
        return picture

    def cut(self, edited: Image.Image) -> Image.Image:
        """The picture's part of a canvas that came back; another shape than the canvas's comes back as it is."""
        (width, height), (w, h) = edited.size, self.size
        if abs((width * h) / (height * w) - 1) > ASPECT_TOLERANCE:
            return edited
        x0, y0, x1, y1 = self.box
        return edited.crop(
            (round(x0 * width / w), round(y0 * height / h), round(x1 * width / w), round(y1 * height / h))
        )

    @property
    def _inner(self) -> Size:
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    @property
    def _rims(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels above and below, left and right."""
        x0, y0, x1, y1 = self.box
        return (y0, self.size[1] - y1), (x0, self.size[0] - x1)

    def _scaled(self, image: Image.Image, by: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
        return image if image.size == self._inner else image.resize(self._inner, by)


def _frame(size: Size, sizes: Sequence[Size] | None) -> _Frame:
    """How a picture of ``size`` is sent to a model that draws ``sizes``, or any where there are none."""
    if sizes is None:
        width, height = fitted_size(size, LONGER_SIDE)
        return _Frame((width, height), (0, 0, width, height))

    def inner(canvas: Size) -> Size:
        scale = min(canvas[0] / size[0], canvas[1] / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def filled(canvas: Size) -> tuple[float, int]:
        width, height = inner(canvas)
        return width * height / (canvas[0] * canvas[1]), width * height

    canvas = max(sizes, key=filled)
    width, height = inner(canvas)
    left, top = (canvas[0] - width) // 2, (canvas[1] - height) // 2
    return _Frame((canvas[0], canvas[1]), (left, top, left + width, top + height))


def _png(name: str, image: Image.Image) -> tuple[str, bytes, str]:
    """A picture as a file of a form."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return f"{name}.png", buffer.getvalue(), "image/png"


def _picture(answer: Any) -> Image.Image:
    """The picture in a server's answer, whatever that is: nothing is taken for granted."""
    data = getattr(answer, "data", None)
    first = data[0] if isinstance(data, list) and data else None
    text, url = getattr(first, "b64_json", None), getattr(first, "url", None)
    if not text and isinstance(url, str) and url.startswith("data:"):
        text = url
    if not isinstance(text, str) or not text:
        if url:
            raise EditError(
                "the server sent the address of a picture, and addresses are not fetched: have it send base64"
            )
        raise EditError("the server sent no picture")
    try:
        return open_image(base64.b64decode("".join(text.rpartition(",")[2].split()), validate=True))
    except ImageError as error:
        raise EditError(f"the server sent no usable picture: {error}") from error
    except ValueError as error:
        raise EditError(f"the server sent base64 that cannot be read ({error})") from error
