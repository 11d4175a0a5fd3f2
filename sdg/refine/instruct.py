"""Editors that follow an instruction: FLUX.1 Kontext and Qwen-Image-Edit, by the pipelines of diffusers."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from sdg.engines.chat import plain
from sdg.hub import HubOptions, brief
from sdg.refine.editors import RIGHT_HALF, SECOND_PICTURE, EditError, Task, candidate
from sdg.refine.loading import Offload, edit_pipeline, short_name, tidy

AREA = 1024 * 1024
"""Pixels that all families were trained to draw."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Family:
    """How the pipelines of one class are called.

    Args:
        arguments: from the pictures (the overlay second, where there is one), the (width, height) to draw and the
            guidance, to what the pipeline wants.
        overlay: what the prompt says about the overlay.
        multiple: what the width and the height that it draws are multiples of, in pixels.
        steps: of the sampler, where the user names no number; from the model's card.
        guidance: as ``steps``.
    """

    arguments: Callable[[list[Image.Image], Size, float], dict[str, Any]]
    overlay: str
    multiple: int
    steps: int
    guidance: float


def _kontext(pictures: list[Image.Image], size: Size, guidance: float) -> dict[str, Any]:
    # It takes one picture. An overlay goes to its right, in the same scale: a place in the left half then has the
    # position that it has in the result. _auto_resize would squeeze both into the sizes that are meant for one.
    scaled = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    return {
        "image": _side_by_side(scaled),
        "guidance_scale": guidance,
        "max_area": size[0] * size[1],
        "_auto_resize": False,
    }


def _qwen(pictures: list[Image.Image], size: Size, guidance: float) -> dict[str, Any]:
    # Without a negative prompt, be it a blank, there is no guidance; with one, each step costs twice as much.
    negative = {"negative_prompt": " "} if guidance > 1 else {}
    return {"image": _side_by_side(pictures), "true_cfg_scale": guidance, **negative}


def _qwen_plus(pictures: list[Image.Image], size: Size, guidance: float) -> dict[str, Any]:
    return {**_qwen(pictures[:1], size, guidance), "image": pictures}


FAMILIES = {
    "FluxKontextPipeline": Family(_kontext, RIGHT_HALF, multiple=16, steps=28, guidance=2.5),
    # Both Qwen pipelines bring the pictures that they see to AREA in multiples of 32. Drawing in another grid shifts
    # and zooms the result.
    "QwenImageEditPipeline": Family(_qwen, RIGHT_HALF, multiple=32, steps=50, guidance=4.0),
    "QwenImageEditPlusPipeline": Family(_qwen_plus, SECOND_PICTURE, multiple=32, steps=40, guidance=4.0),
}
"""The pipelines of diffusers that can be editors, by the name of their class."""


class InstructionEditor:
    """An instruction-editing pipeline of diffusers as an :class:`~sdg.refine.editors.Editor`.

    The same seed gives the same noise on every device. A call waits while another one uses the pipeline.

    Args:
        pipeline: of one of :data:`FAMILIES`, loaded and where it is to run; see :meth:`from_pretrained`.
        name: how results name it; None is the class of the pipeline.
        steps: of the sampler; None is the family's number.
        guidance: how closely the instruction is followed: ``guidance_scale`` of FLUX Kontext, ``true_cfg_scale`` of
            Qwen-Image-Edit; None is the family's number.
        area: pixels that are drawn, whatever the picture has; the ratio of the sides is kept to a multiple of 16 or 32
            pixels. The result is scaled to the picture's size.
        batch: candidates that are drawn at a time, where memory allows.
        overlay: show the overlay, where the task has one: as second picture where the family takes several, to the
            right of the picture where it takes one. False leaves it out.
        paste: keep only what lies in the task's mask.

    Raises:
        ValueError: for a pipeline of another class, and for a value out of range.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        area: int = AREA,
        batch: int = 1,
        overlay: bool = True,
        paste: bool = False,
    ):
        self._family = _family(type(pipeline).__name__)
        self.name = name or type(pipeline).__name__
        self.local = paste
        self.steps = self._family.steps if steps is None else steps
        self.guidance = self._family.guidance if guidance is None else guidance
        self.area = area
        self.batch = batch
        self.overlay = overlay
        for field, value, least in (
            ("steps", self.steps, 1),
            ("guidance", self.guidance, 0),
            ("area", area, self._family.multiple**2),
            ("batch", batch, 1),
        ):
            if value < least:
                raise ValueError(f"{field}={value} must be at least {least}")
        self._pipeline = pipeline
        self._turn = threading.Lock()  # a pipeline keeps the state of its one call in itself

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: str | None = None,
        offload: Offload | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **options: Any,
    ) -> InstructionEditor:
        """Load a pipeline from a folder or from the Hub; only safetensors weights, and no code of the repository.

        Args:
            name_or_path: local folder or Hub id, for example ``"black-forest-labs/FLUX.1-Kontext-dev"``,
                ``"Qwen/Qwen-Image-Edit-2509"``.
            dtype: of the weights; None is bfloat16 on an accelerator and float32 on a CPU.
            device: where it runs; None is the accelerator where there is one.
            device_map: as in diffusers: ``"balanced"`` spreads the parts over the GPUs.
            offload: keep the weights in main memory and bring to the accelerator the part at work (``"model"``), or
                the layer at work (``"sequential"``: least memory, slowest).
            revision: branch, tag or commit of the repository.
            token: for gated and private repositories; None takes the one that is logged in.
            cache_dir: where downloads are kept.
            local_files_only: do not look on the Hub.
            force_download: download again.
            **options: others of :class:`InstructionEditor`.

        Raises:
            ModuleNotFoundError: without diffusers, saying how to install it.
            ValueError: for a pipeline of another class, before its weights are downloaded; for options that exclude
                each other or are out of range.
            CheckpointError: where it cannot be loaded.
        """
        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download).kwargs()
        pipeline = edit_pipeline(
            name_or_path, dtype=dtype, device=device, device_map=device_map, offload=offload, check=_family, **hub
        )
        return cls(pipeline, **{"name": short_name(name_or_path), **options})

    def __repr__(self) -> str:
        return f"InstructionEditor({self.name!r}, steps={self.steps}, guidance={self.guidance:g})"

    def __call__(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        """A candidate for each seed, in order, or why there is none.

        Raises:
            EditError: for a task without an instruction.
        """
        if not task.instruction.strip():
            raise EditError(f"there is no instruction for {self.name!r} to follow")
        framed = task.overlay is not None and self.overlay
        pictures = [task.image, task.overlay] if framed else [task.image]
        width, height = size = drawn_size(task.image.size, self.area, self._family.multiple)
        request = {
            **self._family.arguments([p.convert("RGB") for p in pictures if p], size, self.guidance),
            # First what the picture shows: a long instruction is cut off at its end.
            "prompt": plain(f"{self._family.overlay} {task.instruction}" if framed else task.instruction),
            "width": width,
            "height": height,
            "num_inference_steps": self.steps,
        }
        found: list[Image.Image | EditError] = []
        for start in range(0, len(seeds), self.batch):
            for drawn in self._draw(request, seeds[start : start + self.batch]):
                found.append(drawn if isinstance(drawn, EditError) else self._candidate(drawn, task, size))
        return found

    def _draw(self, request: dict[str, Any], seeds: Sequence[int]) -> list[Image.Image | EditError | None]:
        """Pictures of these seeds, drawn together, or one by one where that fails."""
        try:
            # On the CPU whatever the device, for a seed to give the same noise everywhere.
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            with self._turn:
                images = self._pipeline(**request, num_images_per_prompt=len(seeds), generator=generators).images
            if len(images) == len(seeds):
                return list(images)
            failure = f"{self.name!r} drew {len(images)} pictures for {len(seeds)}"
        except Exception as error:  # a pipeline may raise anything; its message is all that is kept, not its tensors
            failure = self._failure(error, request)
        self._tidy()
        if len(seeds) == 1:
            return [EditError(failure)]
        return [drawn for seed in seeds for drawn in self._draw(request, [seed])]

    def _candidate(self, drawn: Image.Image | None, task: Task, size: Size) -> Image.Image | EditError:
        # The ratio of what is drawn is the picture's but for the multiple, by which no result is to be judged.
        if drawn is not None and drawn.size == size:
            drawn = drawn.resize(task.image.size, Image.Resampling.LANCZOS)
        try:
            return candidate(drawn, task, self.local)
        except EditError as error:
            return error

    def _failure(self, error: Exception, request: dict[str, Any]) -> str:
        said = str(error).lower()
        full = "out of memory" in said or "can't allocate" in said  # as accelerators and as the CPU say it
        if full or isinstance(error, torch.OutOfMemoryError | MemoryError):
            return (
                f"{self.name!r} ran out of memory at {request['width']} x {request['height']} pixels: pass a smaller "
                'area=, or load it with offload="model"'
            )
        return f"{self.name!r} failed: {brief(error)}"

    def _tidy(self) -> None:
        with self._turn:
            tidy(self._pipeline)


def drawn_size(size: Size, area: int, multiple: int) -> Size:
    """The (width, height) of about ``area`` pixels in the ratio of ``size``, in multiples of ``multiple``.

    Example:
        >>> drawn_size((400, 300), 1024 * 1024, 32)
        (1184, 896)
    """
    ratio = size[0] / size[1]
    width = math.sqrt(area * ratio)
    # round() as the pipelines have it: the grid of what they see is to be the grid of what they draw
    return max(1, round(width / multiple)) * multiple, max(1, round(width / ratio / multiple)) * multiple


def _family(kind: Any) -> Family:
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{kind} does not edit by instruction; these pipelines do: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for index, picture in enumerate(pictures):
        row.paste(picture if picture.size == (width, height) else picture.resize((width, height)), (width * index, 0))
    return row
