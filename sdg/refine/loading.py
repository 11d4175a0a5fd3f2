"""Editors by name, and the pipelines that they need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sdg.engines.checkpoints import CheckpointError, brief
from sdg.refine.editors import Editor
from sdg.refine.instruct import FAMILIES, InstructionEditor

EXTRA = 'diffusers is needed to edit pictures: pip install "sdg-t2i[refine]"'


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of diffusers, which repeats in every call what it says of a pipeline once."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def quiet_pipeline(name_or_path: str, auto: str | None = None, **options: Any) -> Any:
    """A diffusers pipeline without its progress bars; weights in safetensors only, no code from the Hub.

    Args:
        name_or_path: folder, or Hub id.
        auto: class of diffusers that chooses a variant of the pipeline's family; None takes the one that it names.
        **options: of its ``from_pretrained``.

    Raises:
        ModuleNotFoundError: without diffusers, saying how to install it.
        OSError: where there is no such pipeline.
    """
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(EXTRA, name="diffusers") from error

    pipeline: Any = getattr(diffusers, auto or "DiffusionPipeline").from_pretrained(
        name_or_path, use_safetensors=True, **options
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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
    if _class_of(name, options) in FAMILIES:
        return InstructionEditor.from_pretrained(name, **options)
    from sdg.refine.inpaint import InpaintEditor

    return InpaintEditor.from_pretrained(name, **options)


def _class_of(name: str, options: dict[str, Any]) -> str:
    """The class that a pipeline names, before its weights are downloaded."""
    try:
        from diffusers import DiffusionPipeline
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(EXTRA, name="diffusers") from error
    hub = {key: options[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in options}
    try:
        return str(DiffusionPipeline.load_config(name, **hub)["_class_name"])
    except Exception as error:
        raise CheckpointError(f"{name!r} is no pipeline of diffusers that can be found: {brief(error)}") from error
