"""The instruction that is asked for: by name, in words, or by the folder or repository that holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sdg.engines.base import SETTINGS_FILE, CheckpointError
from sdg.hub import HUB_ID, HubOptions
from sdg.prompts import PROMPTS, Prompt, as_prompt


def asked_prompt(
    prompt: str | Prompt | None, settings: Mapping[str, Any], hub: HubOptions
) -> tuple[Prompt, dict[str, Any]]:
    """The instruction, and the settings with the order of coordinates that it asks for, where it brings one.

    Args:
        prompt: as in :meth:`sdg.detector.SDGDetector.from_pretrained`; None is the one of ``settings``.
        settings: of the checkpoint.
        hub: how the repository of an instruction is found.

    Raises:
        CheckpointError: for a folder or repository that cannot be found, or holds no instruction.
        ValueError: for a text that is no instruction.
    """
    if not isinstance(prompt, str) or prompt in PROMPTS or not (os.path.isdir(prompt) or HUB_ID.fullmatch(prompt)):
        return as_prompt(settings if prompt is None else prompt), dict(settings)
    from sdg.engines.places import read_settings, settings_folder

    found = read_settings(settings_folder(prompt, hub))
    if not found.get("prompt"):
        raise CheckpointError(
            f'prompt={prompt!r} holds no instruction: a {SETTINGS_FILE} with "prompt" in it, as save_pretrained writes'
            " it, is wanted"
        )
    names = ("prompt", "prompt_without_caption", "box_order")
    own: dict[str, Any] = {name: found[name] for name in names if name in found}
    return as_prompt(own), {**settings, **own}
