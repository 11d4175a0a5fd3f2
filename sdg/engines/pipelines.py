"""Where a pipeline of diffusers, or a LoRA for one, lies: embedded, in a local folder, or on the Hub."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from sdg.engines.base import CheckpointError
from sdg.engines.places import base_of, locate
from sdg.hub import HubError, HubOptions, again, because, contents, download, explain, looks_like, refuse_pickles

INDEX = "model_index.json"
INDEX_FILES = (INDEX, "config.json", "README.md")
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


def pipeline_folder(name_or_path: str | os.PathLike[str], hub: HubOptions, **options: Any) -> Path:
    """The folder of a pipeline, from which ``DiffusionPipeline.from_pretrained`` loads it without asking the Hub.

    Args:
        name_or_path: embedded name, local folder or Hub id.
        hub: how files are found.
        **options: of ``DiffusionPipeline.download``, such as ``variant``.

    Raises:
        CheckpointError: where there is none, saying what there is instead and what to do.
        ModuleNotFoundError: without diffusers, for a repository of the Hub.
    """
    name, place = os.fspath(name_or_path), locate(name_or_path)
    if os.path.isdir(place):
        folder = Path(place)
        _check_index(name, folder, None, hub)
        return folder
    try:
        folder = download(place, hub, patterns=INDEX_FILES, quiet=True)
        _check_index(name, folder, place, hub)
        from diffusers import DiffusionPipeline

        return Path(DiffusionPipeline.download(place, use_safetensors=True, **hub.kwargs(), **options))
    except HubError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(str(error)) from error
    except ModuleNotFoundError:
        raise
    except Exception as error:  # of the Hub, the network, the disk, or of diffusers about what the repository lacks
        try:
            refuse_pickles(repr(name), _parts(contents(folder, place, hub)))
        except HubError as refused:
            raise CheckpointError(str(refused)) from error
        raise CheckpointError(explain(error, place, hub)) from error


def pipeline_class(name_or_path: str | os.PathLike[str], hub: HubOptions) -> str:
    """The class of diffusers that a pipeline names; of a repository only its index is downloaded.

    Args:
        name_or_path: embedded name, local folder or Hub id.
        hub: how files are found.

    Raises:
        CheckpointError: where there is no pipeline, saying what there is instead and what to do.
    """
    name, place = os.fspath(name_or_path), locate(name_or_path)
    if os.path.isdir(place):
        return _check_index(name, Path(place), None, hub)
    try:
        return _check_index(name, download(place, hub, patterns=INDEX_FILES, quiet=True), place, hub)
    except HubError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(str(error)) from error


def load_pipeline(name_or_path: str | os.PathLike[str], auto: str | None = None, **options: Any) -> Any:
    """A pipeline of diffusers; weights in safetensors only, and no code of the repository.

    Args:
        name_or_path: embedded name, local folder or Hub id.
        auto: class of diffusers that chooses a variant of the pipeline's family; None takes the one that it names.
        **options: of :class:`~sdg.hub.HubOptions`, and of diffusers' ``from_pretrained``.

    Raises:
        CheckpointError: saying what is the matter and what to do.
        ModuleNotFoundError: without diffusers.
    """
    import diffusers

    hub = HubOptions(**{field.name: options.pop(field.name) for field in fields(HubOptions) if field.name in options})
    name = os.fspath(name_or_path)
    folder = pipeline_folder(name, hub, **({"variant": options["variant"]} if "variant" in options else {}))
    try:
        pipeline = getattr(diffusers, auto or "DiffusionPipeline").from_pretrained(
            os.fspath(folder), use_safetensors=True, **options
        )
    except Exception as error:
        raise CheckpointError(f"{name!r} could not be loaded: {because(error, folder, name)}") from error
    if name != os.fspath(folder):  # what is trained on it names its base model by this
        pipeline.register_to_config(_name_or_path=name)
    return pipeline


def lora_folder(name_or_path: str | os.PathLike[str], hub: HubOptions) -> Path:
    """The folder of a LoRA for a pipeline, as PEFT writes it or as diffusers does.

    Args:
        name_or_path: local folder or Hub id.
        hub: how files are found.

    Raises:
        CheckpointError: where there is none, saying what there is instead and what to do.
    """
    name, place = os.fspath(name_or_path), locate(name_or_path)
    remote = None if os.path.isdir(place) else place
    try:
        folder = Path(place) if remote is None else download(place, hub, patterns=(*PEFT_FILES, DIFFUSERS_FILE))
    except HubError as error:
        raise CheckpointError(str(error)) from error
    if (folder / DIFFUSERS_FILE).is_file() or all((folder / file).is_file() for file in PEFT_FILES):
        return folder
    there = contents(folder, remote, hub)
    try:
        refuse_pickles(f"LoRA {name!r}", there)
    except HubError as error:
        raise CheckpointError(str(error)) from error
    found = "a full model" if "config.json" in there else looks_like(there - {*PEFT_FILES, DIFFUSERS_FILE})
    raise CheckpointError(
        f"{name!r} is {found or 'no LoRA'}: a LoRA is {PEFT_FILES[1]} with {PEFT_FILES[0]}, or {DIFFUSERS_FILE}"
    )


def check_fits(name: str, folder: Path, transformer: Any) -> None:
    """Refuse a LoRA of PEFT that says that it was made for another class of network.

    Args:
        name: of the LoRA, for the message.
        folder: of :func:`lora_folder`.
        transformer: the network that it is for.

    Raises:
        CheckpointError: naming both classes.
    """
    if not (folder / PEFT_FILES[0]).is_file():
        return
    made_for = base_of(folder).model_class
    # Adapters of sdg.boxflow name the wrapper that they were trained in.
    if made_for not in (None, "PolicyNetwork", type(transformer).__name__):
        raise CheckpointError(
            f"LoRA {name!r} was made for a {made_for}, and this pipeline has a {type(transformer).__name__}: load it"
            f" into a pipeline of {base_of(folder).name or 'its own base model'}"
        )


def _check_index(name: str, folder: Path, remote: str | None, hub: HubOptions) -> str:
    """The class that the index names."""
    path = folder / INDEX
    if not path.is_file():
        there = contents(folder, remote, hub)
        found = "a checkpoint of transformers" if "config.json" in there else looks_like(there)
        raise CheckpointError(
            f"{name!r} has no {INDEX}: it is {found or 'nothing that draws'}; a pipeline of diffusers is wanted"
        )
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{INDEX} of {name!r} is damaged ({error}): {again(name)}") from error
    if not isinstance(kind, str):
        raise CheckpointError(f"{name!r} brings code of its own ({kind}), which is not run here")
    return kind


def _parts(names: set[str]) -> set[str]:
    """The weights of a pipeline's parts, where none of them are safetensors."""
    return set() if any(name.endswith(".safetensors") for name in names) else names
