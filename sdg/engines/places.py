"""Where a checkpoint, an adapter or settings lie: embedded, in a local folder, or on the Hub, fetched into its cache.

What a name leads to is known before gigabytes of weights are on their way: a LoRA, a generator or a data set in place
of a detector is told from its small files.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from sdg import embedded
from sdg.calibration.confidence import CALIBRATION_FILE
from sdg.calibration.trust import Trust
from sdg.calibration.world import WORLD_FILE
from sdg.engines.base import SETTINGS_FILE, CheckpointError
from sdg.hub import HubError, HubOptions, again, contents, damaged, download, looks_like, refuse_pickles

SMALL = ("*.json", "*.jinja", "*.txt", "*.model", WORLD_FILE, "README.md")
"""Everything of a checkpoint but its weights."""

WEIGHTS = ("model*.safetensors",)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", SETTINGS_FILE, CALIBRATION_FILE, WORLD_FILE)
ELSEWHERE = ("*/*",)
"""What lies in folders of a repository, which is no part of a checkpoint: earlier states, other formats."""

WANTED = "the detector needs an image-text-to-text model such as Qwen3-VL"


@dataclass(frozen=True)
class Base:
    """What an adapter says of the model that it was made for; None where it does not say."""

    name: str | None
    model_class: str | None


def locate(name_or_path: str | os.PathLike[str]) -> str:
    """The folder or the Hub id that a name stands for: an embedded name first, then a folder, then an id.

    Raises:
        CheckpointError: for an embedded checkpoint that this installation lacks or that is damaged, and for a path that
            is no folder.
    """
    name = os.fspath(name_or_path)
    try:
        own = embedded.find(name)
    except HubError as error:
        raise CheckpointError(str(error)) from error
    if own is not None:
        return str(own)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise CheckpointError(f"{name!r} is a file: give the folder that holds config.json and the weights")
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or "\\" in name:
        what = "looks like a path, and there is no such folder" if "/" in name or "\\" in name else "is not known"
        raise CheckpointError(
            f"{name!r} {what}. Tried: embedded checkpoints ({', '.join(embedded.NAMES)}), a local folder. Name one of"
            f" these, or a repository of the Hub at {constants.ENDPOINT} as owner/name"
        )
    return name


def checkpoint_folder(name_or_path: str | os.PathLike[str], hub: HubOptions) -> Path:
    """The folder of an image-text-to-text checkpoint, all of whose files are there.

    Args:
        name_or_path: embedded name, local folder or Hub id.
        hub: how files are found.

    Raises:
        CheckpointError: where there is none, saying what there is instead and what to do.
    """
    name, place = os.fspath(name_or_path), locate(name_or_path)
    if os.path.isdir(place):
        folder, asked = Path(place), None
        _check_kind(name, folder, contents(folder))
    else:
        asked = place
        folder = _fetched(place, hub, SMALL)
        # The Hub is asked what else there is only where something is missing.
        _check_kind(name, folder, None if (folder / "config.json").is_file() else contents(folder, place, hub))
        folder = _fetched(place, hub, (*SMALL, *WEIGHTS))
    _check_weights(name, folder, asked, hub)
    return folder


def adapter_folder(name_or_path: str | os.PathLike[str], hub: HubOptions) -> Path:
    """The folder of a PEFT adapter.

    Args:
        name_or_path: local folder or Hub id.
        hub: how files are found; ``revision`` is the adapter's.

    Raises:
        CheckpointError: as :func:`checkpoint_folder`.
    """
    name, place = os.fspath(name_or_path), locate(name_or_path)
    remote = None if os.path.isdir(place) else place
    folder = Path(place) if remote is None else _fetched(place, hub, ADAPTER)
    if not (folder / "adapter_config.json").is_file():
        there = contents(folder, remote, hub)
        found = "a full model" if "config.json" in there else looks_like(there)
        raise CheckpointError(
            f"adapter {name!r} has no adapter_config.json{f': it is {found}' if found else ''}; adapter= takes a PEFT"
            " adapter that was made for this model" + ("" if found != "a full model" else ", a model is loaded alone")
        )
    if not (folder / "adapter_model.safetensors").is_file():
        _without_weights(f"adapter {name!r}", "adapter_model.safetensors", contents(folder, remote, hub))
    return folder


def settings_folder(name_or_path: str | os.PathLike[str], hub: HubOptions) -> Path:
    """The folder with what a checkpoint or a repository says besides its weights: settings, calibration, world.

    Raises:
        CheckpointError: where there is no such folder or repository.
    """
    place = locate(name_or_path)
    return Path(place) if os.path.isdir(place) else _fetched(place, hub, SMALL)


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the :data:`SETTINGS_FILE` of a folder says, or nothing where it has none.

    Raises:
        CheckpointError: where the file is there and is not a JSON object.
    """
    path = Path(folder, SETTINGS_FILE)
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds a {type(settings).__name__}, not an object")
    return settings


def read_trust(folder: str | os.PathLike[str]) -> Trust:
    """The calibration and world of a folder, where it has them.

    Raises:
        CheckpointError: where a file is there and cannot be read.
    """
    try:
        return Trust.load(lambda name: path if (path := Path(folder, name)).is_file() else None)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def calibration_of(name_or_path: str | os.PathLike[str], hub: HubOptions) -> Trust:
    """The calibration and world that a folder or a repository of their own holds.

    Raises:
        CheckpointError: where it holds neither, or one cannot be read.
    """
    trust = read_trust(settings_folder(name_or_path, hub))
    if trust == Trust():
        raise CheckpointError(
            f"calibration {os.fspath(name_or_path)!r} holds neither {CALIBRATION_FILE} nor {WORLD_FILE}: `sdg"
            " calibrate MODEL DATA --out FOLDER` writes them"
        )
    return trust


def base_of(folder: Path) -> Base:
    """The model that the adapter in a folder was made for.

    Raises:
        CheckpointError: where its configuration cannot be read.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return Base(
            config.get("base_model_name_or_path") or None,
            (config.get("auto_mapping") or {}).get("base_model_class") or None,
        )
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"adapter_config.json of {folder} is damaged (no JSON object: {error})") from error


def _fetched(repo_id: str, hub: HubOptions, patterns: tuple[str, ...]) -> Path:
    try:
        return download(repo_id, hub, patterns=patterns, ignore=ELSEWHERE, quiet=patterns == SMALL)
    except HubError as error:
        raise CheckpointError(str(error)) from error


def _check_kind(name: str, folder: Path, there: set[str] | None) -> None:
    """Refuse what is no image-text-to-text model, by its small files."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            base = base_of(folder).name or "its base model"
            raise CheckpointError(f"{name!r} has no config.json, it is an adapter: load {base!r} with adapter={name!r}")
        found = looks_like(there or ())
        raise CheckpointError(
            f"{name!r} has no config.json: it is {found or 'no checkpoint of transformers'}; {WANTED}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, part = config.get("model_type"), config.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the configuration of {name!r} could not be read: {damaged(folder) or error}; {again(name)}"
        ) from error
    if part:
        raise CheckpointError(f"{name!r} is a {part} of diffusers, which draws pictures; {WANTED}")
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise CheckpointError(f"{name!r} is a {kind!r} model, which does not take a picture and a text: {WANTED}")


def _check_weights(name: str, folder: Path, asked: str | None, hub: HubOptions) -> None:
    there = {path.name for path in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index.name} of {name!r} is damaged ({error}): {again(name)}") from error
        if missing := sorted(shards - there):
            raise CheckpointError(f"{name!r} lacks {', '.join(missing[:3])}, which its index names: {again(name)}")
    elif "model.safetensors" not in there:
        _without_weights(repr(name), "model.safetensors", contents(folder, asked, hub))


def _without_weights(what: str, wanted: str, there: set[str]) -> None:
    try:
        refuse_pickles(what, there)
    except HubError as error:
        raise CheckpointError(str(error)) from error
    raise CheckpointError(f"{what} has no weights: {wanted} is missing")
