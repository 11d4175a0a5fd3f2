"""Folders on disk: a plain transformers folder for use, and the last complete checkpoint to resume from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdg.engines.base import SETTINGS_FILE
from sdg.prompts import Prompt


def save_detector(
    model: Any,
    processor: Any,
    folder: str | Path,
    state_dict: Mapping[str, torch.Tensor] | None = None,
    *,
    prompt: Prompt,
    max_new_tokens: int,
    made_for: str | None = None,
) -> Path:
    """A plain transformers folder with weights in bfloat16, and ``sdg_config.json`` beside them.

    ``config.json`` keeps the dtype that the model computes in, so that a model trained in float32 under autocast is
    loaded and run in float32. A PEFT model leaves its adapter.

    Args:
        model: a ``PreTrainedModel`` or ``PeftModel``.
        processor: its processor.
        folder: where to; written beside it first and then renamed, so that a folder is whole or not there.
        state_dict: the weights, where they are sharded and were gathered; None takes the model's own.
        prompt: the instruction that the model was trained with.
        max_new_tokens: the longest answer to ask for.
        made_for: the world that the checkpoint knows, in words; None for pictures of any kind.

    Returns:
        ``folder``.
    """
    folder = Path(folder)
    part = folder.with_name(folder.name + ".part")
    halves: dict[int, torch.Tensor] = {}
    state = {}
    for name, value in (model.state_dict() if state_dict is None else state_dict).items():
        key = value.data_ptr()
        if key not in halves:
            halves[key] = value.to(torch.bfloat16) if value.is_floating_point() else value
        state[name] = halves[key]
    model.save_pretrained(part, state_dict=state)
    processor.save_pretrained(part)
    settings = {
        "box_order": "xyxy",
        "prompt": prompt.template,
        "prompt_without_caption": prompt.template_without_caption,
        "made_for": made_for,
        "max_new_tokens": max_new_tokens,
    }
    (part / SETTINGS_FILE).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def last_complete_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint of a trainer's output folder that was written to its end, or None.

    The trainer writes ``trainer_state.json`` last; a process killed while saving leaves a folder without it, which
    transformers' own search would pick.
    """
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if match and state.get("global_step") == int(match[1]):
            found.append((int(match[1]), str(path)))
    return max(found)[1] if found else None
