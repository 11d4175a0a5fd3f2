"""Adapters of a pipeline's transformer, saved and loaded so that each library gives them the right scale."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from sdg.engines.base import CheckpointError
from sdg.engines.pipelines import DIFFUSERS_FILE, PEFT_FILES, check_fits, lora_folder
from sdg.hub import HubOptions, because

PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""
WRAPPER = "transformer."
"""What :class:`sdg.boxflow.network.PolicyNetwork` puts before the names of the transformer."""


def save_lora(model: PeftModel, pipeline: Any, folder: str | Path) -> Path:
    """Write the adapter of a policy network as a LoRA of its pipeline's transformer.

    The folder holds it twice, because the two libraries read different names: ``pytorch_lora_weights.safetensors`` for
    ``pipeline.load_lora_weights(folder)``, with the scale alpha / rank in its metadata (diffusers would take 1), and
    ``adapter_model.safetensors`` with ``adapter_config.json`` for ``PeftModel.from_pretrained(transformer, folder)``.

    Args:
        model: a PEFT model around :class:`~sdg.boxflow.network.PolicyNetwork`.
        pipeline: of the family, whose class knows how to write its LoRA.
        folder: is made where there is none.

    Returns:
        the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    state = {name.removeprefix(PREFIX).removeprefix(WRAPPER): value.detach().cpu() for name, value in state.items()}
    config = copy.deepcopy(model.peft_config[model.active_adapter])
    config.inference_mode = True
    config.base_model_name_or_path = pipeline.config.get("_name_or_path") or None
    config.save_pretrained(str(folder))
    save_file({PREFIX + name: value for name, value in state.items()}, folder / "adapter_model.safetensors")
    settings = {name: value for name, value in config.to_dict().items() if value is not None}
    pipeline.save_lora_weights(str(folder), transformer_lora_layers=state, transformer_lora_adapter_metadata=settings)
    return folder


def load_lora(
    pipeline: Any,
    name_or_path: str | os.PathLike[str],
    *,
    adapter_name: str = "default",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> None:
    """Put a LoRA on a pipeline's transformer, at its scale alpha / rank; diffusers' own methods go on from there.

    Both layouts are read: PEFT's (``adapter_config.json`` with ``adapter_model.safetensors``, as
    ``P1n3/boxflow-grpo-flux-lora`` has it), which ``pipeline.load_lora_weights`` does not load, and diffusers'
    (``pytorch_lora_weights.safetensors``).

    Args:
        pipeline: of diffusers, of the family that the LoRA was made for.
        name_or_path: local folder or Hub id.
        adapter_name: by which ``pipeline.set_adapters`` and others know it.
        revision: as in :class:`~sdg.hub.HubOptions`, and so are the others.
        token: see there.
        cache_dir: see there.
        local_files_only: see there.
        force_download: see there.

    Raises:
        CheckpointError: where there is none, it is damaged, or it was made for another transformer.
    """
    hub = HubOptions(revision, token, cache_dir, local_files_only, force_download)
    name, folder = os.fspath(name_or_path), lora_folder(name_or_path, hub)
    transformer = pipeline.transformer
    check_fits(name, folder, transformer)
    try:
        if (folder / DIFFUSERS_FILE).is_file():
            pipeline.load_lora_weights(str(folder), weight_name=DIFFUSERS_FILE, adapter_name=adapter_name)
            wanted = set()
        else:
            config = LoraConfig.from_pretrained(str(folder))
            saved = load_file(folder / PEFT_FILES[1])
            state = {key.removeprefix(PREFIX).removeprefix(WRAPPER): value for key, value in saved.items()}
            settings = {key: value for key, value in config.to_dict().items() if value is not None}
            transformer.load_lora_adapter(state, prefix=None, adapter_name=adapter_name, metadata=settings)
            wanted = set(state)
        held = set(get_peft_model_state_dict(transformer, adapter_name=adapter_name))
    except Exception as error:
        reason = because(error, folder, name)
        raise CheckpointError(f"LoRA {name!r} could not be put on a {type(transformer).__name__}: {reason}") from error
    if not held or wanted - held:  # of which diffusers would only warn
        pipeline.delete_adapters(adapter_name)
        raise CheckpointError(
            f"LoRA {name!r} has weights for which a {type(transformer).__name__} like this one has no place"
            f" ({', '.join(sorted(wanted - held)[:2]) or 'all of them'}): load it into its own base model"
        )
