"""How something was trained, as a file beside its weights, from which a card tells it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from sdg.provenance import made_by

RECIPE_FILE = "sdg_recipe.json"

TOLD = (
    *("learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "num_train_epochs", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "optim", "muon", "weight_decay"),
    *("max_grad_norm", "bf16", "fp16", "seed", "max_length", "freeze_vision", "coordinate_jitter", "coordinate_sigma"),
    *("coordinate_weight", "dense_weight", "degrade", "think_without", "answer_without", "num_generations"),
    *("temperature", "top_p", "max_completion_length", "beta", "epsilon", "advantage", "c_artifact", "c_misalignment"),
    *("height", "width", "num_sampling_steps", "guidance_scale", "dynamics", "noise_level", "sde_window", "sde_steps"),
    *("ema_decay", "lora_r", "lora_alpha"),
)
"""Settings that a recipe tells, where a configuration has them."""


def write_recipe(
    folder: str | os.PathLike[str],
    method: str,
    *configs: Any,
    base_model: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write :data:`RECIPE_FILE` beside the weights.

    Args:
        folder: of the weights.
        method: in words, such as ``"supervised fine-tuning"``.
        *configs: objects whose attributes of :data:`TOLD` are told.
        base_model: what training started from; None is nothing.
        data: what it was trained on. Of absolute paths the name is kept, other paths of this machine begin with ``./``.
        more: further settings.

    Returns:
        the file.
    """
    settings = {name: value for config in configs for name, value in _told(config)}
    recipe = {
        "method": method,
        "base_model": _named(base_model),
        "data": _named(data),
        "settings": {**settings, **(more or {})},
        **made_by(),
    }
    path = Path(folder, RECIPE_FILE)
    path.write_text(json.dumps(recipe, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_recipe(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The recipe of a folder, or nothing where it has none.

    Raises:
        ValueError: for a file that holds no JSON object.
    """
    path = Path(folder, RECIPE_FILE)
    if not path.is_file():
        return {}
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds a {type(recipe).__name__}, not an object")
    return recipe


def _told(config: Any) -> Iterator[tuple[str, Any]]:
    for name in TOLD:
        if name.startswith("lora_") and not getattr(config, "use_peft", False):
            continue
        value = getattr(config, name, None)
        value = value.value if isinstance(value, Enum) else value
        unset = value is None or value in ([], "") or (name == "max_steps" and value == -1)
        if not unset and isinstance(value, str | int | float | list):
            yield name, value


def _named(place: str | os.PathLike[str] | None) -> str | None:
    """A place as others may read it; a folder of this machine does not look like an id of the Hub."""
    if place is None:
        return None
    if os.path.isabs(place):
        return Path(place).name
    return f"./{Path(place).as_posix()}" if Path(place).exists() else os.fspath(place)
