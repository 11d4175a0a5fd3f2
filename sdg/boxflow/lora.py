"""Saving a trained adapter so that diffusers and PEFT both load it, each with the right scale."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

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
