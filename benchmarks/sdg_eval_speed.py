"""What SDG-Eval costs beside the obvious loop: one IoU matrix and one assignment per image, nothing else.

    python benchmarks/sdg_eval_speed.py

Both score the same made-up predictions, without sentence embeddings; the table says how long each took, best of
several turns taken in alternation. A ratio below 1 means that all of SDG-Eval costs less than the bare loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sdg.defects import TYPES, DefectSet
from sdg.evaluation import SDGEval

Item = dict[str, Any]


def made_up(images: int, defects: int, seed: int) -> tuple[list[list[Item]], list[list[Item]]]:
    """References, and predictions that are jittered copies of most of them."""
    random = np.random.default_rng(seed)

    def image() -> list[Item]:
        corner, size = random.integers(0, 700, (defects, 2)), random.integers(20, 300, (defects, 2))
        return [
            {
                "box": [*map(int, c), *map(int, c + s)],
                "type": TYPES[int(random.integers(2))].value,
                "reason": f"fault number {int(random.integers(50))}",
                "importance": int(random.integers(1, 101)),
            }
            for c, s in zip(corner, size, strict=True)
        ]

    def answer(truth: list[Item]) -> list[Item]:
        other = image()
        return [
            d
            if random.random() < 0.4
            else {**t, "box": (np.array(t["box"]) + random.integers(-9, 10)).clip(0).tolist()}
            for t, d in zip(truth, other, strict=True)
        ]

    references = [image() for _ in range(images)]
    return references, [answer(truth) for truth in references]


def direct_loop(predictions: list[Any], references: list[Any], tau: float = 0.5) -> float:
    """BoxF1 over both types, as one would write it down: image by image."""

    def arrays(items: Any) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(items, DefectSet):
            return np.array([d.box for d in items], dtype=float), np.array([d.type.value for d in items])
        return np.array([d["box"] for d in items], dtype=float), np.array([d["type"] for d in items])

    matched = total = 0
    for predicted, true in zip(predictions, references, strict=True):
        (p, p_type), (g, g_type) = arrays(predicted), arrays(true)
        low, high = np.maximum(p[:, None, :2], g[None, :, :2]), np.minimum(p[:, None, 2:], g[None, :, 2:])
        common = np.clip(high - low, 0, None).prod(axis=2)
        area_p, area_g = (p[:, 2:] - p[:, :2]).prod(axis=1), (g[:, 2:] - g[:, :2]).prod(axis=1)
        iou = common / (area_p[:, None] + area_g[None, :] - common) * (p_type[:, None] == g_type[None, :])
        rows, columns = linear_sum_assignment(iou, maximize=True)
        matched += int((iou[rows, columns] >= tau).sum())
        total += len(p) + len(g)
    return 2 * matched / total


def compare(first: Callable[[], Any], second: Callable[[], Any], turns: int) -> tuple[float, float]:
    """Best time of each, in seconds; alternating, so that a busy machine disturbs both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for run, seconds in zip((first, second), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1151, help="size of SDG-30K's test split")
    parser.add_argument("--defects", type=int, default=3, help="predictions, and references, of an image")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    references, predictions = made_up(options.images, options.defects, options.seed)
    forms = {
        "DefectSet": ([DefectSet.of(p) for p in predictions], [DefectSet.of(r) for r in references]),
        "dictionaries": (predictions, references),
    }
    print(f"{options.images} images, {options.defects} defects a side, no embeddings; best of {options.turns} turns\n")
    print("| input | matching | SDG-Eval, ms | direct loop, ms | ratio |\n|---|---|---|---|---|")
    for form, (p, g) in forms.items():
        for matching in ("hungarian", "greedy"):
            metric = SDGEval(embedder=None, matching=matching)  # type: ignore[arg-type]
            ours, loop = compare(
                lambda metric=metric, p=p, g=g: metric.compute(predictions=p, references=g),
                lambda p=p, g=g: direct_loop(p, g),
                options.turns,
            )
            print(f"| {form} | {matching} | {ours * 1e3:.1f} | {loop * 1e3:.1f} | {ours / loop:.2f} |")
    metric = SDGEval(embedder=None, ci=0.95)
    start = time.perf_counter()
    metric.compute(predictions=predictions, references=references)
    print(f"\nwith 95 % intervals: {(time.perf_counter() - start) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
