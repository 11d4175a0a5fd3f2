"""Inpainting pipelines of diffusers: each region is cut out, filled in at the model's own size, and put back."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdg.hub import HubOptions
from sdg.refine.editors import EditError, Task, check_not_black
from sdg.refine.loading import Offload, edit_pipeline, short_name, tidy
from sdg.refine.regions import Rectangle, feathered, mixed, regions, window


class InpaintEditor:
    """Fills the mask in with a diffusers inpainting pipeline: Stable Diffusion, SDXL, SD3, FLUX, FLUX Fill and others.

    Each connected part of the mask is edited on its own, in a square window round it that is scaled to the model's own
    size, so that small defects get pixels. Outside the mask the picture stays as it is to the bit; inside, the edit
    fades out towards the edge.

    Args:
        pipeline: a loaded pipeline that takes ``prompt``, ``image`` and ``mask_image``.
        name: how results name it.
        size: side in pixels at which windows are edited; None is the pipeline's own.
        context: side of a window over that of its region, 1 or more.
        feather: pixels of the picture's shorter side over which an edit fades out, as a share.
        batch: candidates that are made at a time.
        **call: further arguments of the pipeline's call, such as ``num_inference_steps`` or ``strength``.

    Raises:
        ValueError: for a pipeline that does not fill in masks, or an argument out of range.
    """

    local = True

    def __init__(
        self,
        pipeline: Any,
        name: str | None = None,
        *,
        size: int | None = None,
        context: float = 2.0,
        feather: float = 0.01,
        batch: int = 1,
        **call: Any,
    ) -> None:
        self._takes = inspect.signature(type(pipeline).__call__).parameters
        if not _fills_in(type(pipeline)):
            raise ValueError(
                f"{type(pipeline).__name__} takes no prompt, image and mask_image: it does not fill in masks"
            )
        unknown = set(call) - set(self._takes)
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: no arguments of {type(pipeline).__name__}")
        if size is not None and size < 16:
            raise ValueError(f"size={size} is below 16 pixels")
        if context < 1:
            raise ValueError(f"context={context} is below 1: the window would not hold its region")
        if batch < 1:
            raise ValueError(f"batch={batch} must be at least 1")
        self.pipeline, self.context, self.feather, self.batch = pipeline, context, feather, batch
        self.name = name or pipeline.config.get("_name_or_path") or type(pipeline).__name__
        self.size, self.call = size or _own_size(pipeline), call

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: str | None = None,
        offload: Offload | None = None,
        variant: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **options: Any,
    ) -> InpaintEditor:
        """Load a pipeline as the inpainting variant of its family; only safetensors weights, and no code from the Hub.

        Args:
            name_or_path: folder, or Hub id, for example ``"black-forest-labs/FLUX.1-Fill-dev"``.
            dtype: of the weights; None is bfloat16 on an accelerator and float32 on a CPU.
            device: where it runs; None is the accelerator where there is one.
            device_map: as in diffusers: ``"balanced"`` spreads the parts over the GPUs.
            offload: keep the weights in main memory and bring to the accelerator the part at work (``"model"``), or
                the layer at work (``"sequential"``: least memory, slowest).
            variant: of the weights' files, such as ``"fp16"``.
            revision: branch, tag or commit of the repository.
            token: for gated and private repositories; None takes the one that is logged in.
            cache_dir: where downloads are kept.
            local_files_only: do not look on the Hub.
            force_download: download again.
            **options: others of :class:`InpaintEditor`.

        Raises:
            ModuleNotFoundError: without diffusers, saying how to install it.
            ValueError: for a pipeline that does not fill in masks, and for options that exclude each other or are out
                of range.
            CheckpointError: where it cannot be loaded, or diffusers has no inpainting variant of it.
        """
        hub = HubOptions(revision, token, cache_dir, local_files_only, force_download).kwargs()
        if variant is not None:
            hub["variant"] = variant
        pipeline = edit_pipeline(
            name_or_path,
            _variant,
            dtype=dtype,
            device=device,
            device_map=device_map,
            offload=offload,
            **hub,
        )
        return cls(pipeline, **{"name": short_name(name_or_path), **options})

    def __call__(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        """A candidate for each seed; see :class:`~sdg.refine.editors.Editor`."""
        edits: list[Image.Image | EditError] = []
        for start in range(0, len(seeds), self.batch):
            edits += self._some(task, seeds[start : start + self.batch])
        return edits

    def _some(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        """Candidates that are made together, or one by one where that fails."""
        try:
            return self._edited(task, seeds)
        except Exception as error:  # out of memory, or whatever a pipeline raises; its message is kept, not its tensors
            failure = f"{self.name} failed ({type(error).__name__}: {error})"
        tidy(self.pipeline)
        if len(seeds) == 1:
            return [EditError(failure)]
        return [edit for seed in seeds for edit in self._some(task, [seed])]

    def _edited(self, task: Task, seeds: Sequence[int]) -> list[Image.Image | EditError]:
        size = task.image.size
        mask = Image.new("L", size, 255) if task.mask is None else task.mask
        share = feathered(mask, self.feather * min(size))
        edits: list[Image.Image | EditError] = [task.image] * len(seeds)
        for region in regions(mask):
            # What was filled in before is seen in the window of what comes after.
            alive = [(i, edit) for i, edit in enumerate(edits) if isinstance(edit, Image.Image)]
            filled = self._filled([edit for _, edit in alive], mask, region, task, [seeds[i] for i, _ in alive])
            for (i, edit), new in zip(alive, filled, strict=True):
                edits[i] = new if isinstance(new, EditError) else mixed(edit, new, share * _inside(region, size))
        return edits

    def _filled(
        self, images: Sequence[Image.Image], mask: Image.Image, region: Rectangle, task: Task, seeds: Sequence[int]
    ) -> list[Image.Image | EditError]:
        """The pictures with the window round a region filled in."""
        if not images:
            return []
        place = window(region, mask.size, self.context, least=min(64, *mask.size))
        width, height = self._working_size(place)
        cut = [image.crop(place).resize((width, height), Image.Resampling.LANCZOS) for image in images]
        hole = mask.crop(place).resize((width, height), Image.Resampling.NEAREST)
        device = getattr(self.pipeline, "_execution_device", "cpu")
        call = {
            "prompt": [task.prompt] * len(cut),
            "image": cut,
            "mask_image": [hole] * len(cut),
            "width": width,
            "height": height,
            "generator": [torch.Generator(device).manual_seed(seed) for seed in seeds],
            **({"negative_prompt": [task.avoid] * len(cut)} if task.avoid else {}),
            **self.call,
        }
        made = self.pipeline(**{key: value for key, value in call.items() if key in self._takes})
        flagged = getattr(made, "nsfw_content_detected", None) or [False] * len(cut)
        out: list[Image.Image | EditError] = []
        for image, was, filled, refused in zip(images, cut, made.images, flagged, strict=True):
            try:
                if refused:
                    raise EditError("its safety filter refused the picture")
                check_not_black(filled, was)
            except EditError as error:
                out.append(error)
                continue
            whole = image.copy()
            whole.paste(filled.convert("RGB").resize(place.size, Image.Resampling.LANCZOS), place[:2])
            out.append(whole)
        return out

    def _working_size(self, place: Rectangle) -> tuple[int, int]:
        """The window's size for the model: its shape, about ``size`` squared pixels, sides multiples of 16."""
        width, height = place.size
        scale = self.size / (width * height) ** 0.5
        return max(16, round(width * scale / 16) * 16), max(16, round(height * scale / 16) * 16)


def _fills_in(kind: type) -> bool:
    return {"prompt", "image", "mask_image"} <= set(inspect.signature(kind.__call__).parameters)


def _variant(kind: str) -> str | None:
    """The class that loads a pipeline as one that fills masks in; None where the class that it names does so."""
    import diffusers

    # The class that chooses a variant does not know all of them: FLUX Fill for one.
    return None if _fills_in(getattr(diffusers, kind)) else "AutoPipelineForInpainting"


def _own_size(pipeline: Any) -> int:
    """The side at which a pipeline draws by default, in pixels."""
    own = getattr(pipeline, "default_sample_size", None)
    if own is None:
        config = getattr(getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None), "config", {})
        own = config.get("sample_size", 128)
    own = own if isinstance(own, int) else min(own)
    return int(own * getattr(pipeline, "vae_scale_factor", 8))


def _inside(region: Rectangle, size: tuple[int, int]) -> np.ndarray:
    inside = np.zeros((size[1], size[0]), dtype=np.float32)
    inside[region.top : region.bottom, region.left : region.right] = 1
    return inside
