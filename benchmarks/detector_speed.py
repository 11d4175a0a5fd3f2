"""Pictures a second of a detector, one by one and in batches, in one run on this machine.

    python benchmarks/detector_speed.py
    python benchmarks/detector_speed.py --checkpoint P1n3/sdg-detector-grpo --images 32 --batch-sizes 8

The pictures are unseen ones of the microworld. One by one means one call a picture; the ratio is what batching gains.
Every setting answers the same pictures, with the same weights and threads, after a warm-up; best of several turns,
taken in alternation.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from sdg import SDGDetector
from sdg.microworld import generate


def answer(detector: Any, images: list[Any], captions: list[str], batch_size: int) -> tuple[float, int]:
    """Seconds and new tokens for all pictures; batch size 1 calls the detector once a picture."""
    started = time.perf_counter()
    if batch_size == 1:
        found = [detector(image, caption) for image, caption in zip(images, captions, strict=True)]
    else:
        found = detector(images, captions, batch_size=batch_size)
    return time.perf_counter() - started, sum(f.info["new_tokens"] for f in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="sdg-tiny", help="embedded name, folder or Hub id")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--dtype", default=None, help="of the weights; chosen by the machine unless given")
    parser.add_argument("--threads", type=int, default=None, help="torch threads; torch's own choice unless given")
    parser.add_argument("--constrained", action="store_true", help="decode under the grammar of the response format")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    detector = SDGDetector.from_pretrained(options.checkpoint, dtype=options.dtype, constrained=options.constrained)
    records = list(generate(options.images, options.seed, "test"))
    images, captions = [r.image for r in records], [r.caption for r in records]
    sizes = [1, *options.batch_sizes]
    for size in sizes:
        answer(detector, images[: min(size, len(images))], captions[: min(size, len(images))], size)
    quick = SDGDetector.from_pretrained(options.checkpoint, dtype=options.dtype, answer_only=True)
    quickest = float("inf")
    best = dict.fromkeys(sizes, (float("inf"), 0))
    for _ in range(options.turns):
        for size in sizes:
            best[size] = min(best[size], answer(detector, images, captions, size))
        quickest = min(quickest, answer(quick, images, captions, sizes[-1])[0])

    model = detector.engine.model
    million = sum(p.numel() for p in model.parameters()) / 1e6
    dtype = str(model.dtype).removeprefix("torch.")
    print(
        f"{options.checkpoint} ({million:.1f} M parameters, {dtype}) on {model.device},"
        f" {torch.get_num_threads()} torch threads; {len(images)} microworld pictures,"
        f" {best[1][1] / len(images):.0f} new tokens each; best of {options.turns} turns\n"
    )
    print("| batch | pictures/s | new tokens/s | ratio to one by one |\n|---|---|---|---|")
    for size in sizes:
        seconds, tokens = best[size]
        name = "one by one" if size == 1 else str(size)
        print(f"| {name} | {len(images) / seconds:.1f} | {tokens / seconds:.0f} | {best[1][0] / seconds:.1f} |")
    print(f"| {sizes[-1]}, answer only | {len(images) / quickest:.1f} | | {best[1][0] / quickest:.1f} |")


if __name__ == "__main__":
    main()
