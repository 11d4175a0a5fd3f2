"""Teaching the tiny generator to mend: to turn what a mask covers into what belongs there, and still to draw.

A repair starts from the broken picture under noise, and flow matching carries it to the sound one. On the way from
``A = (1 - s) broken + s noise`` at noise level s to the sound picture at level 0 every point holds noise of just its
own level, as everywhere on the generator's own paths, so its weights are at home there; what is new is that some of
the signal is wrong. Where the mask is 0 the network sees the picture itself, free of noise, and so it sees the mask. A
mask that covers all of a picture asks for it to be drawn from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdg.boxes import GRID
from sdg.training.generator import LONG, SHORT, Flow


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
    """Flow matching of repairs and of whole pictures: the squared error of the velocity where the mask is.

    The transformer is trained; text encoders stay as they are.

    Args:
        pipeline: whose transformer is trained.
        least: smallest noise level that a repair starts from.
        most: largest.
        unseen: share of repairs in which the masked part is filled in from noise alone, whatever was there.
    """

    def __init__(self, pipeline: Any, least: float = 0.3, most: float = 0.65, unseen: float = 0.05) -> None:
        super().__init__()
        self.flow = Flow(pipeline)
        self.flow.encoders.requires_grad_(False)
        self.flow.third.requires_grad_(False)
        self.least, self.most, self.unseen = least, most, unseen

    def forward(
        self, sound: Tensor, broken: Tensor, mask: Tensor, input_ids: Tensor, third_ids: Tensor
    ) -> dict[str, Tensor]:
        """Loss of normalised latents.

        Args:
            sound: of the pictures as they should be, (B, CHANNELS, H / 8, W / 8).
            broken: of the pictures as they are.
            mask: cells that may change, (B, 1, H / 8, W / 8) of 0 and 1; where all are 1, what was there is not seen.
            input_ids: of the captions, for the first two encoders.
            third_ids: for the third.

        Returns:
            loss; draw_loss and mend_loss, those of the two kinds of pictures (nan where there is none).
        """
        length = SHORT
        if self.training and float(torch.rand(())) < self.flow.long:
            # So many tokens cost five times as much a picture: a quarter of the batch is enough.
            length, few = LONG, max(1, len(sound) // 4)
            sound, broken, mask = sound[:few], broken[:few], mask[:few]
            input_ids, third_ids = input_ids[:few], third_ids[:few]
        n, device = len(sound), sound.device
        drawn = mask.flatten(1).amin(1) > 0
        if self.training:
            hidden = (drawn & (torch.rand(n, device=device) < self.flow.uncaptioned))[:, None]
            input_ids = torch.where(hidden, self.flow.no_input_ids, input_ids)
            third_ids = torch.where(hidden, self.flow.no_third_ids, third_ids)
        start = self.least + (self.most - self.least) * torch.rand(n, device=device)
        start = torch.where(drawn | (torch.rand_like(start) < self.unseen), torch.ones_like(start), start)
        # One share of the way from each of n equal slices; of whole pictures the middle counts most, as in Flow.
        share = (torch.randperm(n, device=device) + torch.rand(n, device=device)) / n
        share = torch.where(drawn, torch.sigmoid(torch.special.ndtri(share.clamp(1e-4, 1 - 1e-4))), share)
        timestep = share * start * 1000
        start, share = start.view(-1, 1, 1, 1), share.view(-1, 1, 1, 1)
        worst = torch.lerp(broken, torch.randn_like(sound), start)
        x = torch.where(mask > 0, torch.lerp(sound, worst, share), sound)
        with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
            with torch.no_grad():
                tokens, pooled = self.flow.embed(input_ids, third_ids, length)
            velocity = self.flow.transformer(
                hidden_states=x, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=timestep
            ).sample
        # Of the whole picture's worth of steps only masked cells count; a large mask does not count for more.
        wrong = (velocity.float() - (worst - sound) / start).square() * mask
        losses = wrong.sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * sound.shape[1])
        return {
            "loss": losses.mean(),
            "draw_loss": losses[drawn].mean().detach(),
            "mend_loss": losses[~drawn].mean().detach(),
        }
