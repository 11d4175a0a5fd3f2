"""Panels of an evaluation: pictures with the defects found in them, and the reward and advantage of each location."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sdg.boxflow.advantages import Advantages
from sdg.defects import DefectSet
from sdg.draw import INK, PAPER, contact_sheet
from sdg.records import Record

BETTER, WORSE = np.array([33, 102, 172]), np.array([178, 24, 43])
"""Colours of values above and below 0, apart for colour-blind eyes too."""


def map_picture(values: Tensor, most: float, size: tuple[int, int]) -> Image.Image:
    """A map in colours: white at 0, blue above, red below, full at ``most``.

    Args:
        values: (H, W).
        most: absolute value that has the full colour; 0 gives a white picture.
        size: width and height in pixels; a location stays a rectangle of one colour.
    """
    share = np.clip(values.cpu().numpy() / (most or 1.0), -1, 1)[..., None]
    colours = 255 + np.abs(share) * (np.where(share < 0, WORSE, BETTER) - 255)
    return Image.fromarray(colours.round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


def draw_panels(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    defect_sets: Sequence[DefectSet],
    reward_maps: Tensor,
    advantage_maps: Tensor,
) -> Image.Image:
    """A page with a row for each picture: its boxes, its reward map against its highest reward, its advantage map.

    All rows share their colours' scale, which stands at the foot of the page.

    Args:
        images: N pictures.
        captions: their prompts.
        defect_sets: what was found in them.
        reward_maps: (N, H, W), in reward units.
        advantage_maps: (N, H, W).

    Raises:
        ValueError: for no pictures, not equally many of everything, or a map that holds NaN.
    """
    if not images:
        raise ValueError("images is empty: a panel needs at least one picture")
    if not reward_maps.isfinite().all() or not advantage_maps.isfinite().all():
        raise ValueError("reward_maps or advantage_maps hold values that are not finite numbers: nothing to draw")
    losses = reward_maps - reward_maps.amax(dim=(1, 2), keepdim=True)
    worst, most = float(losses.abs().max()), float(advantage_maps.abs().max())
    cells = []
    for image, caption, found, rewards, loss, advantage in zip(
        images, captions, defect_sets, reward_maps, losses, advantage_maps, strict=True
    ):
        low, high = float(advantage.min()), float(advantage.max())
        reward = f"reward {float(rewards.min()):.3f} to {float(rewards.max()):.3f}"
        for picture, words, boxes in (
            (image, caption, found),
            (map_picture(loss, worst, image.size), reward, ()),
            (map_picture(advantage, most, image.size), f"advantage {low:+.2f} to {high:+.2f}", ()),
        ):
            cells.append(Record(picture, words, DefectSet.of(boxes)))
    return _with_scales(contact_sheet(cells, columns=3), worst, most)


def _with_scales(page: Image.Image, worst: float, most: float) -> Image.Image:
    """The page with a bar of colours under the columns of maps: the lost reward, and the advantage."""
    font = ImageFont.load_default(size=12)
    foot = Image.new("RGB", (page.width, 56), PAPER)
    draw = ImageDraw.Draw(foot)
    column = page.width / 3
    for left, ends, words in (
        (column, (-worst, 0.0), "reward below the picture's best"),
        (2 * column, (-most, most), "advantage, 0 in white"),
    ):
        x, width = round(left) + 12, round(column) - 24
        shades = torch.linspace(*ends, width)[None]
        foot.paste(map_picture(shades, max(map(abs, ends)), (width, 14)), (x, 0))
        draw.rectangle((x, 0, x + width - 1, 13), outline=INK)
        draw.text((x, 17), f"{ends[0]:+.2f}", fill=INK, font=font)
        draw.text((x + width, 17), f"{ends[1]:+.2f}" if ends[1] else "0", fill=INK, font=font, anchor="ra")
        draw.text((x + width // 2, 33), words, fill=INK, font=font, anchor="ma")
    whole = Image.new("RGB", (page.width, page.height + foot.height), PAPER)
    whole.paste(page)
    whole.paste(foot, (0, page.height))
    return whole


class Panel:
    """Collects the first pictures of an evaluation, and shows them where the run is logged.

    Args:
        most: pictures of a panel; 0 for none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: list[tuple[Any, ...]] = []

    def keep(
        self,
        images: Sequence[Image.Image],
        captions: Sequence[str],
        found: Sequence[DefectSet] | None,
        whole: Advantages | None,
        mine: slice,
    ) -> None:
        """Take pictures of a batch, until there are enough; groups of one have no advantages and are left out."""
        if whole is None:
            return
        sets = found or [DefectSet(())] * len(images)
        rows = zip(images, captions, sets, whole.rewards[mine].cpu(), whole.values[mine].cpu(), strict=True)
        self._rows.extend(list(rows)[: self._most - len(self._rows)])

    def show(self, trainer: Any, name: str = "eval") -> None:
        """Write the panel as ``OUTPUT_DIR/panels/step_N.png``, and give it to the trackers that the run reports to.

        Args:
            trainer: of the run.
            name: of the evaluation; one of several sets, ``eval_SET``, has a file of its own, ``SET_step_N.png``.
        """
        if not self._rows:
            return
        images, captions, sets, rewards, values = zip(*self._rows, strict=True)
        page = draw_panels(images, captions, sets, torch.stack(rewards), torch.stack(values))
        step = trainer.state.global_step
        file = f"{name}_step_{step:06d}.png".removeprefix("eval_")
        path = Path(str(trainer.args.output_dir), "panels", file)
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path)
        for callback in trainer.callback_handler.callbacks:
            writer = getattr(callback, "tb_writer", None)  # TensorBoardCallback
            if writer is not None:
                writer.add_image(f"{name}/panel", np.asarray(page), step, dataformats="HWC")
        for tracker in set(trainer.args.report_to) & {"wandb", "trackio"}:
            module = importlib.import_module(tracker)
            module.log({f"{name}/panel": module.Image(np.asarray(page))})
