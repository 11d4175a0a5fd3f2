"""Teaching the tiny generator to mend: a LoRA that turns what a mask covers into what belongs there.

A repair starts from the broken picture under noise, and flow matching carries it to the sound one. On the way from
``A = (1 - s) broken + s noise`` at noise level s to the sound picture at level 0 every point holds noise of just its
own level, as everywhere on the generator's own paths, so its weights are at home there; what is new is that some of
the signal is wrong. Where the mask is 0 the network sees the picture itself, free of noise, and so it sees the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdg.boxes import GRID
from sdg.training.generator import SHORT, Flow

TARGETS = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    *("ff.net.0.proj", "ff.net.2", "norm1.linear"),
)
"""Layers of each block that the LoRA changes; of the caption's half only what the picture's tokens read."""


def add_lora(transformer: Any, rank: int = 8) -> list[nn.Parameter]:
    """Freeze a transformer and give it a LoRA to be trained; returns its parameters."""
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=True, target_modules=list(TARGETS)))
    return [p for p in transformer.parameters() if p.requires_grad]


def cells(boxes: Sequence[tuple[int, int, int, int]], side: int) -> np.ndarray:
    """Latent cells that any of the boxes touches.

    Args:
        boxes: on the 0..1000 grid.
        side: cells of a row, and rows.

    Returns:
        (side, side) of bool.
    """
    mask = np.zeros((side, side), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        left, top = x0 * side // GRID, y0 * side // GRID
        mask[top : -(-y1 * side // GRID), left : -(-x1 * side // GRID)] = True
    return mask


class Repair(nn.Module):
    """Loss of a repair: the squared error of the velocity where the mask is.

    Args:
        pipeline: whose transformer has the LoRA.
        least: smallest noise level that a repair starts from.
        most: largest.
        unseen: share of pictures of which the masked part is filled in from noise alone, whatever was there.
    """

    def __init__(self, pipeline: Any, least: float = 0.45, most: float = 0.9, unseen: float = 0.15) -> None:
        super().__init__()
        self.flow = Flow(pipeline)
        self.least, self.most, self.unseen = least, most, unseen

    def forward(
        self, sound: Tensor, broken: Tensor, mask: Tensor, input_ids: Tensor, third_ids: Tensor
    ) -> dict[str, Tensor]:
        """Loss of normalised latents.

        Args:
            sound: of the pictures as they should be, (B, CHANNELS, H / 8, W / 8).
            broken: of the pictures as they are.
            mask: cells that may change, (B, 1, H / 8, W / 8) of 0 and 1.
            input_ids: of the captions, for the first two encoders.
            third_ids: for the third.
        """
        n, device = len(sound), sound.device
        start = self.least + (self.most - self.least) * torch.rand(n, 1, 1, 1, device=device)
        start = torch.where(torch.rand_like(start) < self.unseen, torch.ones_like(start), start)
        noise = torch.randn_like(sound)
        worst = (1 - start) * broken + start * noise
        share = (torch.randperm(n, device=device) + torch.rand(n, device=device)).view(-1, 1, 1, 1) / n
        x = torch.where(mask > 0, torch.lerp(sound, worst, share), sound)
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
            with torch.no_grad():
                tokens, pooled = self.flow.embed(input_ids, third_ids, SHORT)
            velocity = self.flow.transformer(
                hidden_states=x,
                encoder_hidden_states=tokens,
                pooled_projections=pooled,
                timestep=(share * start).flatten() * 1000,
            ).sample
        # Of the whole picture's worth of steps only masked cells count; a large mask does not count for more.
        wrong = (velocity.float() - (worst - sound) / start).square() * mask
        return {"loss": (wrong.sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * sound.shape[1])).mean()}


def save_repair(pipeline: Any, folder: str | Path) -> None:
    """Write the LoRA in bfloat16, for ``pipeline.load_lora_weights(folder)``, with its scale in the metadata."""
    transformer = pipeline.transformer
    state = get_peft_model_state_dict(transformer, adapter_name="default")
    settings = {
        name: value for name, value in transformer.peft_config["default"].to_dict().items() if value is not None
    }
    pipeline.save_lora_weights(
        str(folder),
        transformer_lora_layers={name: value.detach().to(torch.bfloat16).contiguous() for name, value in state.items()},
        transformer_lora_adapter_metadata=settings,
    )
