"""What the detector's reward costs beside the obvious loop: one answer after the other, reasons embedded as they come.

    python benchmarks/detector_reward.py

Both score the same made-up answers with the same embedder, best of several turns taken in alternation; they must agree.
The first table is with all-MiniLM-L6-v2, the second with an embedder that costs nothing, which leaves the arithmetic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sdg import DefectSet, DetectorReward, ResponseFormatError, microworld, parse_response, render_response
from sdg.defects import TYPES, Defect
from sdg.embedding import load_embedder


def made_up(prompts: int, generations: int, seed: int) -> tuple[list[str], list[DefectSet]]:
    """Groups of answers to microworld pictures: true defects, some moved, dropped or borrowed, some answers broken."""
    random = np.random.default_rng(seed)
    records = list(microworld.generate(prompts, seed))
    pool = [d for r in records for d in r.defects]

    def moved(d: Defect) -> Defect:
        box = (np.array(d.box) + random.integers(-30, 31)).clip(0, 1000)
        other = pool[int(random.integers(len(pool)))]
        reason = other.reason if random.random() < 0.4 else d.reason
        valid = box[0] < box[2] and box[1] < box[3]
        return Defect(tuple(box.tolist()) if valid else d.box, d.type, reason, int(random.integers(1, 101)))

    completions, references = [], []
    for record in records:
        for _ in range(generations):
            kept = [moved(d) for d in record.defects if random.random() < 0.85]
            if random.random() < 0.2:
                kept.append(pool[int(random.integers(len(pool)))])
            text = render_response(DefectSet(tuple(kept), reasoning=record.defects.reasoning))
            completions.append(text[:-20] if random.random() < 0.05 else text)
            references.append(record.defects)
    return completions, references


def direct_loop(completions: list[str], references: list[DefectSet], embed: Callable[[list[str]], Any]) -> list[float]:
    """The reward as one would write it down: answer by answer, pair by pair."""

    def diou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
        common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
        area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
        apart = sum(((a[k] + a[k + 2] - b[k] - b[k + 2]) / 2) ** 2 for k in (0, 1))
        diagonal = sum((max(a[k + 2], b[k + 2]) - min(a[k], b[k])) ** 2 for k in (0, 1))
        return common / area - apart / diagonal

    rewards = []
    for text, true in zip(completions, references, strict=True):
        try:
            found = parse_response(text, strict=True)
        except ResponseFormatError:
            rewards.append(-1.0)
            continue
        pairs = []
        for kind in TYPES:
            p, g = found.of_type(kind), true.of_type(kind)
            if p and g:
                scores = np.array([[diou(a.box, b.box) for b in g] for a in p])
                pairs += [(p[i], g[j], scores[i, j]) for i, j in zip(*linear_sum_assignment(-scores), strict=True)]
        n = max(len(found), len(true), 1)
        if found and true:
            unmatched = len(found) + len(true) - 2 * len(pairs)
            loc = float(np.clip((sum(s for _, _, s in pairs) - 0.5 * unmatched) / n, -1, 1))
        else:
            loc = -0.3 if found else -0.8 if true else 0.3
        desc = imp = 0.0
        for a, b, _ in pairs:
            u, v = np.asarray(embed([a.reason, b.reason]), dtype=np.float64)
            cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
            desc += float(np.clip((cosine - 0.5) / 0.4, 0, 1)) / n
            imp += max(1 - abs(a.importance - b.importance) / 50, 0) / n
        rewards.append(0.6 * loc + 0.25 * desc + 0.15 * imp)
    return rewards


def no_cost(texts: list[str]) -> np.ndarray:
    """A vector a text, for nothing."""
    return np.array([[len(text), 1 + text.count("e"), 40.0] for text in texts])


def compare(prompts: int, generations: int, turns: int, embedder: Any, seed: int) -> None:
    """Time both on the same answers and print a line."""
    completions, references = made_up(prompts, generations, seed)
    embed = load_embedder(embedder)
    embed(["warm up"])
    times: dict[str, list[float]] = {"loop": [], "first": [], "again": []}
    for _ in range(turns):
        reward = DetectorReward(embedder=embed)
        runs = {
            "loop": lambda: direct_loop(completions, references, embed),
            "first": lambda r=reward: r(completions, defects=references),
            "again": lambda r=reward: r(completions, defects=references),
        }
        results = {}
        for name, run in runs.items():
            start = time.perf_counter()
            results[name] = run()
            times[name].append(time.perf_counter() - start)
        np.testing.assert_allclose(results["first"], results["loop"], atol=1e-5)
        assert results["again"] == results["first"]
    best = {name: min(seconds) for name, seconds in times.items()}
    n = len(completions)
    print(f"\n{n} answers ({prompts} pictures, {generations} each), embedder {embed.name}")
    print("| | ms an answer | ratio to the loop |\n|---|---|---|")
    labels = {"loop": "obvious loop", "first": "DetectorReward", "again": "DetectorReward, reasons met before"}
    for name, label in labels.items():
        print(f"| {label} | {best[name] / n * 1e3:.3f} | {best[name] / best['loop']:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    compare(args.prompts, args.generations, args.turns, "auto", args.seed)
    compare(args.prompts, args.generations, args.turns, no_cost, args.seed)


if __name__ == "__main__":
    main()
