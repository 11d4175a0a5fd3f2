"""Editors by name, and the pipelines that they need."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from sdg.engines.base import CheckpointError
from sdg.engines.pipelines import load_pipeline, pipeline_class
from sdg.hub import HubOptions, brief
from sdg.refine.editors import Editor

Offload = Literal["model", "sequential"]
EXTRA = 'diffusers is needed to edit pictures: pip install "sdg-t2i[refine]"'


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of diffusers, which repeats in every call what it says of a pipeline once, and its bars."""
    from diffusers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a new name for torch_dtype, which older ones lack
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def quiet_pipeline(name_or_path: str | os.PathLike[str], auto: str | None = None, **options: Any) -> Any:
    """A diffusers pipeline without its progress bars; weights in safetensors only, no code from the Hub.

    Args:
        name_or_path: folder, or Hub id.
        auto: class of diffusers that chooses a variant of the pipeline's family; None takes the one that it names.
        **options: as of :func:`~sdg.engines.pipelines.load_pipeline`.

    Raises:
        ModuleNotFoundError: without diffusers, saying how to install it.
        CheckpointError: where it cannot be loaded.
    """
    _diffusers()
    pipeline = load_pipeline(name_or_path, auto, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def edit_pipeline(
    name_or_path: str | os.PathLike[str],
    auto: Callable[[str], str | None] | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | None = None,
    offload: Offload | None = None,
    check: Callable[[str], Any] | None = None,
    **options: Any,
) -> Any:
    """The pipeline of an editor, where it is to run.

    Args:
        name_or_path: folder, or Hub id.
        auto: from the class that the pipeline names to that of :func:`quiet_pipeline`.
        dtype: of the weights; None is bfloat16 on an accelerator and float32 on a CPU.
        device: where it runs; None is the accelerator where there is one.
        device_map: as in diffusers: ``"balanced"`` spreads the parts over the GPUs.
        offload: keep the weights in main memory and bring to the accelerator the part at work (``"model"``), or the
            layer at work (``"sequential"``: least memory, slowest).
        check: called with the class that the pipeline names, before its weights are downloaded; raises to refuse it.
        **options: of :class:`~sdg.hub.HubOptions` and of diffusers' ``from_pretrained``, such as ``variant``.

    Raises:
        ModuleNotFoundError: without diffusers, saying how to install it.
        ValueError: for options that exclude each other or are out of range.
        CheckpointError: where it cannot be loaded.
    """
    if sum(choice is not None for choice in (device, device_map, offload)) > 1:
        raise ValueError("device, device_map and offload exclude each other: pass one of them")
    if offload not in (None, *get_args(Offload)):
        raise ValueError(f"offload={offload!r} is not 'model', 'sequential' or None")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if offload and accelerator is None:
        raise ValueError(f"offload={offload!r} needs a GPU to bring the weights to, and there is none: leave it out")
    chosen = device or (None if device_map else accelerator or "cpu")
    # ZeroGPU shows no accelerator until a visitor's turn comes: a device that is named is believed.
    on_cpu = device_map == "cpu" or (chosen is not None and torch.device(chosen).type == "cpu")
    weights = _dtype(dtype, torch.float32 if on_cpu else torch.bfloat16)
    diffusers, kind = _diffusers(), pipeline_class(name_or_path, _hub(options))
    if check is not None:
        check(kind)
    name = os.fspath(name_or_path)
    if not hasattr(diffusers, kind):
        raise CheckpointError(
            f"{name!r} is a {kind}, which diffusers {diffusers.__version__} lacks: install a newer one"
        )
    pipeline = quiet_pipeline(
        name_or_path, auto(kind) if auto else None, torch_dtype=weights, device_map=device_map, **options
    )
    try:
        if offload == "model":
            pipeline.enable_model_cpu_offload()
        elif offload == "sequential":
            pipeline.enable_sequential_cpu_offload()
        elif chosen is not None:
            pipeline.to(chosen)
    except Exception as error:
        raise CheckpointError(f"{name!r} could not be loaded: {brief(error)}") from error
    return pipeline


def tidy(pipeline: Any) -> None:
    """Give back what a call that broke off holds; offloaded parts would stay on the accelerator otherwise."""
    free = getattr(pipeline, "maybe_free_model_hooks", None)
    if free is not None:
        free()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def short_name(name_or_path: str | os.PathLike[str]) -> str:
    """How results name what was loaded: a folder by its last part, a repository by its id."""
    name = os.fspath(name_or_path)
    return Path(name).name if os.path.isdir(name) else name


def load_editor(name_or_path: str | os.PathLike[str], endpoint: str | None = None, **options: Any) -> Editor:
    """An editor by name.

    Args:
        name_or_path: ``"sdg-tiny-t2i"``, or folder or Hub id of a diffusers pipeline, which follows instructions or
            fills masks in; with ``endpoint``, the model as that server names it.
        endpoint: address of an OpenAI-compatible images API.
        **options: of the editor, or of its ``from_pretrained``.

    Raises:
        OSError: where there is no such pipeline or server.
        ValueError: where the pipeline's class can do neither.
        ModuleNotFoundError: without diffusers, saying how to install it.
    """
    name = os.fspath(name_or_path)
    if endpoint:
        from sdg.refine.endpoint import EndpointEditor

        editor = EndpointEditor(endpoint, name, **options)
        editor.check()
        return editor
    if name == "sdg-tiny-t2i":
        from sdg.refine.tiny import TinyEditor

        return TinyEditor.from_pretrained(name, **options)
    from sdg.refine.instruct import FAMILIES, InstructionEditor

    _diffusers()
    if pipeline_class(name, _hub(options)) in FAMILIES:
        return InstructionEditor.from_pretrained(name, **options)
    from sdg.refine.inpaint import InpaintEditor

    return InpaintEditor.from_pretrained(name, **options)


def _hub(options: dict[str, Any]) -> HubOptions:
    """Those of the options that say how files are found."""
    return HubOptions(**{field.name: options[field.name] for field in fields(HubOptions) if field.name in options})


def _diffusers() -> Any:
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(EXTRA, name="diffusers") from error
    return diffusers


def _dtype(dtype: str | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or default
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype={dtype!r} is not a type of torch, such as 'bfloat16' or 'float32'")
    return found
