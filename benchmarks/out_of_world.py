"""Whether a small checkpoint knows a picture that it was not made for: test pictures against real photographs.

    python benchmarks/out_of_world.py --out benchmarks/results/sdg-tiny

The photographs are those that lie inside the scikit-image package; nothing is downloaded, and neither the score nor its
threshold has seen them: the score was chosen on noise, gradients, drawn polygons, lines, text and altered microworld
pictures. Degraded microworld pictures are in the checkpoint's world and must not be called outside.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sdg import SDGDetector, microworld
from sdg.calibration import auroc
from sdg.detector.observe import look_at
from sdg.provenance import write_result
from sdg.training.degrade import degrade

SEED = 20_000

PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("motorcycle_right.png", "retina.jpg", "rocket.jpg"),
)
OTHERS = ("chessboard_RGB.png", "color.png", "horse.png", "logo.png", "page.png", "phantom.png", "text.png")


def shipped(names: tuple[str, ...]) -> list[Image.Image]:
    """Pictures that lie inside the installed scikit-image."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('scikit-image is not installed: pip install "sdg-t2i[dev]"')
    folder = Path(spec.submodule_search_locations[0], "data")
    return [Image.open(folder / name).convert("RGB") for name in names if (folder / name).is_file()]


def quarters(images: list[Image.Image]) -> list[Image.Image]:
    """Each picture cut into four."""
    parts = []
    for image in images:
        w, h = image.width // 2, image.height // 2
        parts += [image.crop((x, y, x + w, y + h)) for x in (0, w) for y in (0, h)]
    return parts


def noise_and_shapes(n: int) -> list[Image.Image]:
    """What is neither world nor photograph: noise, and polygons on a flat ground."""
    rng = np.random.default_rng(SEED)
    images = [Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)) for _ in range(n // 2)]
    for _ in range(n - len(images)):
        image = Image.new("RGB", (128, 128), tuple(rng.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            points = [tuple(p) for p in rng.integers(0, 128, (4, 2)).tolist()]
            draw.polygon(points, fill=tuple(rng.integers(0, 256, 3).tolist()))
        images.append(image)
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdg-tiny")
    parser.add_argument("--n", type=int, default=300, help="test pictures, and as many degraded ones")
    parser.add_argument("--out", type=Path, help="folder for out_of_world.json")
    args = parser.parse_args()

    detector = SDGDetector.from_pretrained(args.model)
    world = detector.trust.world
    if world is None:
        raise SystemExit(f"{args.model} has no {'world.safetensors'}: sdg calibrate {args.model} DATA")

    def scores(images: list[Any]) -> np.ndarray:
        return world.score([features for features in look_at(detector, images) if features is not None])

    rng = np.random.default_rng(SEED)
    plain = [record.image for record in microworld.generate(args.n, SEED, "test")]
    inside = scores(plain)
    groups = {
        "microworld test pictures": inside,
        "the same, degraded": scores([degrade(image, rng) for image in plain]),
        "photographs of scikit-image": scores(shipped(PHOTOGRAPHS)),
        "quarters of these": scores(quarters(shipped(PHOTOGRAPHS))),
        "its scans and drawings": scores(shipped(OTHERS)),
        "noise and polygons": scores(noise_and_shapes(100)),
    }
    rows = {
        name: {
            "pictures": len(group),
            "auroc": auroc(inside, group) if group is not inside else None,
            "called_outside": float((group > world.threshold).mean()),
            "median": float(np.median(group)),
            "least": float(group.min()),
            "most": float(group.max()),
        }
        for name, group in groups.items()
    }
    print(
        f"\n{args.model}: distance from the training pictures; above {world.threshold:.3f} a picture is called outside"
        f" ({100 * world.false_alarms:g} % of validation)\n"
    )
    print("| pictures | n | AUROC | called outside | median (least - most) |\n|---|---|---|---|---|")
    for name, row in rows.items():
        against = "" if row["auroc"] is None else f"{row['auroc']:.4f}"
        spread = f"{row['median']:.2f} ({row['least']:.2f} - {row['most']:.2f})"
        print(f"| {name} | {row['pictures']} | {against} | {row['called_outside']:.3f} | {spread} |")
    if args.out:
        write_result(args.out / "out_of_world.json", {"threshold": world.threshold, "groups": rows})


if __name__ == "__main__":
    main()
