"""bfloat16 where it is quick."""

from __future__ import annotations

import logging

import torch
from transformers import TrainingArguments

from sdg.engines.checkpoints import cpu_dtype

logger = logging.getLogger(__name__)


def without_emulated_bf16(args: TrainingArguments) -> None:
    """Train in float32 where ``bf16`` is asked for on a CPU that has no units for it.

    Recipes ask for bfloat16, and where it is emulated its matrix products take many times as long as float32's.

    Args:
        args: of a trainer that is not built yet; changed in place.
    """
    if args.bf16 and args.device.type == "cpu" and cpu_dtype() is torch.float32:
        logger.warning("bf16 is left out: this CPU is quicker in float32")
        args.bf16, args.mixed_precision = False, "no"
