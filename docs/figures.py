"""Draw the pictures of the concepts page and README: python docs/figures.py [--out docs/img]

Everything in them is real: microworld pictures, what sdg-tiny says about them, what sdg-tiny-t2i draws. Each is
the first of a seed that shows what its caption is about. Drawn again after a change of the weights, they change.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from matplotlib.figure import Figure
from PIL import Image

from sdg import SDGDetector, microworld
from sdg.boxflow.maps import reward_map, spatial_advantage
from sdg.boxflow.panels import map_picture
from sdg.defects import DefectSet
from sdg.draw import blank_figure, overlay
from sdg.matching import match
from sdg.microworld.scorer import MicroworldScorer
from sdg.records import Record
from sdg.training.generator import SHORT, find_pipeline

SIDE = 448
SEED = 11
K = 4


def answers(detector: SDGDetector) -> Iterator[tuple[Record, DefectSet]]:
    """Pictures of the test split and what the detector finds in them."""
    for record in microworld.generate(200, SEED, "test"):
        yield record, detector(record.image, record.caption)


def detection(detector: SDGDetector) -> Image.Image:
    """A detection of three defects, both types among them, beside the picture and its caption."""
    record, found = next((r, f) for r, f in answers(detector) if len(f) >= 3 and f.artifacts and f.misalignments)
    figure = blank_figure(9, 3.2)
    picture, words = figure.subplots(1, 2, width_ratios=(1, 1.75))
    picture.imshow(overlay(record.image, found, min_side=SIDE))
    for panel in (picture, words):
        panel.set_axis_off()
    lines = [f'"{record.caption}"', ""]
    for number, defect in enumerate(found.by_importance(), start=1):
        lines += [f"{number}  {defect.type}, {defect.tier} ({defect.importance})", f"    {defect.reason}"]
        lines += [f"    box {defect.box}", ""]
    words.text(0, 0.5, "\n".join(lines), va="center", fontsize=9.5, linespacing=1.35)
    return drawn(figure)


def matching(detector: SDGDetector) -> Image.Image:
    """Truth and answer side by side where they do not agree in full, and the overlap of the pairs between them."""
    for record, found in answers(detector):
        pairs = match(found, record.defects)
        if pairs and len(found) != len(record.defects):
            break
    figure = blank_figure(9, 3.9)
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.85))
    for panel, title, defects in zip(panels, ("truth", "answer"), (record.defects, found), strict=False):
        panel.imshow(overlay(record.image, defects, min_side=SIDE, tiers=False))
        panel.set_title(title, fontsize=10)
    said, true = (list(defects.by_importance()) for defects in (found, record.defects))
    lines = []
    for i, j, score in sorted(pairs, key=lambda pair: true.index(record.defects[pair[1]])):
        of = f"answer {said.index(found[i]) + 1} = truth {true.index(record.defects[j]) + 1}"
        lines.append(
            f"{of}: {record.defects[j].type}\n  IoU {score:.2f}: {'counts' if score >= 0.5 else 'too low'} at 0.5"
        )
    alone = {i for i, *_ in pairs}, {j for _, j, _ in pairs}
    lines += [f"answer {said.index(d) + 1} alone: invented" for i, d in enumerate(found) if i not in alone[0]]
    lines += [f"truth {true.index(d) + 1} alone: missed" for j, d in enumerate(record.defects) if j not in alone[1]]
    panels[2].text(0, 0.5, "\n\n".join(lines), va="center", fontsize=9.5)
    for panel in panels:
        panel.set_axis_off()
    figure.suptitle(f'"{record.caption}"', fontsize=10)
    return drawn(figure)


def advantage(detector: SDGDetector) -> Image.Image:
    """One prompt's pictures, their scalar advantage, and the advantage of each place (Eq. 4 and 5)."""
    pipeline = DiffusionPipeline.from_pretrained(find_pipeline("sdg-tiny-t2i"), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for record in microworld.generate(100, SEED, "test", clean=True):
        if len(record.objects) > 2:
            continue
        noise = [torch.Generator().manual_seed(seed) for seed in range(K)]
        options = {"num_inference_steps": 20, "guidance_scale": 1.0, "max_sequence_length": SHORT}
        images = pipeline([record.caption] * K, generator=noise, **options).images
        found = detector(images, [record.caption] * K)
        if sum(bool(f.artifacts) for f in found) in (2, 3):
            break
    rewards = torch.tensor(MicroworldScorer.from_pretrained("sdg-tiny-scorer").score(images, [record.caption] * K))
    scalar = spatial_advantage(rewards)
    maps = spatial_advantage(reward_map(rewards, found, (16, 16), rewards.std()))
    most = float(max(scalar.abs().max(), maps.abs().max()))
    figure = blank_figure(9, 7.2)
    for k, column in enumerate(figure.subplots(3, K).T):
        flat = scalar[k].expand(16, 16)
        column[0].imshow(overlay(images[k], found[k], min_side=256, tiers=False))
        column[0].set_title(f"reward {rewards[k]:.2f}", fontsize=9.5)
        for panel, values, of in ((column[1], flat, "scalar"), (column[2], maps[k], "box")):
            panel.imshow(map_picture(values, most, (256, 256)))
            low, high = float(values.min()), float(values.max())
            panel.set_title(f"{of}: {low:+.2f}" + (f" to {high:+.2f}" if high - low > 0.005 else ""), fontsize=9.5)
        for panel in column:
            panel.set_xticks([])
            panel.set_yticks([])
    figure.suptitle(f'"{record.caption}"', fontsize=10)
    return drawn(figure)


FIGURES: dict[str, Callable[[SDGDetector], Image.Image]] = {
    "detection.jpg": detection,
    "matching.jpg": matching,
    "advantage.jpg": advantage,
}


def drawn(figure: Figure) -> Image.Image:
    """A figure of matplotlib as a picture."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return Image.fromarray(np.asarray(Image.open(file).convert("RGB")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "img")
    parser.add_argument("names", nargs="*", default=list(FIGURES), help="of " + ", ".join(FIGURES))
    args = parser.parse_args()
    detector = SDGDetector.from_pretrained("sdg-tiny")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        FIGURES[name](detector).save(args.out / name, quality=85, optimize=True)
        print(args.out / name)


if __name__ == "__main__":
    main()
