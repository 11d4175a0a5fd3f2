"""Whether a picture is like those that a checkpoint was trained on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdg.defects import DefectSet

WORLD_FILE = "world.safetensors"
"""Where a checkpoint keeps it, beside its weights."""

FALSE_ALARMS = 0.01
"""Share of pictures from inside the world that the threshold calls outside."""


@dataclass(frozen=True)
class World:
    """The region that training pictures fill in the space of the vision tower's features.

    The score is the Mahalanobis distance from their mean, divided by the square root of the number of features, so that
    it is about 1 inside. The covariance is shrunk (Ledoit and Wolf, 2004): with few pictures and many features the
    plain one has no inverse.

    Args:
        mean: (d,) float32.
        whitening: (d, d) float32, the square root of the inverse of the covariance.
        threshold: score above which a picture is outside.
        false_alarms: share of pictures from inside that lie above it, as it was chosen.
        fitted_on: where it comes from, in words.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    threshold: float
    false_alarms: float = FALSE_ALARMS
    fitted_on: str = ""

    @classmethod
    def fit(
        cls, pictures: ArrayLike, held_out: ArrayLike, false_alarms: float = FALSE_ALARMS, fitted_on: str = ""
    ) -> World:
        """Learn a world.

        Args:
            pictures: (n, d) features of training pictures.
            held_out: (m, d) features of others from the same world, which the threshold is chosen on.
            false_alarms: share of ``held_out`` that may lie above the threshold.
            fitted_on: kept with it.

        Raises:
            ValueError: for a share outside 0..1, or where there are too few pictures for it.
        """
        from sklearn.covariance import LedoitWolf

        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms={false_alarms} is not a share between 0 and 1")
        x, others = np.asarray(pictures, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
        needed = math.ceil(1 / false_alarms)
        if len(x) < 2 or len(others) < needed:
            raise ValueError(
                f"{len(x)} pictures and {len(others)} held out are too few: a share of {false_alarms:g} needs"
                f" {needed} held out"
            )
        values, vectors = np.linalg.eigh(LedoitWolf().fit(x).covariance_)
        whitening = (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
        world = cls(x.mean(0).astype(np.float32), whitening.astype(np.float32), math.inf, false_alarms, fitted_on)
        threshold = float(np.quantile(world.score(others), 1 - false_alarms, method="higher"))
        return cls(world.mean, world.whitening, threshold, false_alarms, fitted_on)

    def score(self, pictures: ArrayLike) -> NDArray[np.float64]:
        """How far each of (n, d) features lies from the training pictures, (n,); about 1 inside.

        Raises:
            ValueError: for features of another width: they come from another checkpoint.
        """
        x = np.atleast_2d(np.asarray(pictures, dtype=np.float64))
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"{x.shape[1]} features a picture, but {WORLD_FILE} has {len(self.mean)}: it belongs to another model"
            )
        return np.linalg.norm((x - self.mean) @ self.whitening, axis=1) / math.sqrt(len(self.mean))

    def judge(self, picture: ArrayLike) -> dict[str, Any]:
        """What ``info["out_of_world"]`` of a result says of one picture's (d,) features."""
        score = float(self.score(picture)[0])
        # A score that is no number is nowhere near training's.
        outside = not score <= self.threshold
        return {
            "score": round(score, 4) if math.isfinite(score) else None,
            "threshold": round(self.threshold, 4),
            "outside": outside,
            "false_alarms": self.false_alarms,
        }

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write :data:`WORLD_FILE` into a folder."""
        from safetensors.numpy import save

        path = Path(folder, WORLD_FILE)
        facts = {
            "threshold": repr(self.threshold),
            "false_alarms": repr(self.false_alarms),
            "fitted_on": self.fitted_on,
        }
        tensors = {"mean": np.ascontiguousarray(self.mean), "whitening": np.ascontiguousarray(self.whitening)}
        path.write_bytes(save(tensors, metadata=facts))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> World:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: naming the file and what is wrong with it.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                facts = file.metadata() or {}
                mean, whitening = file.get_tensor("mean"), file.get_tensor("whitening")
            if whitening.shape != (len(mean), len(mean)):
                raise ValueError(f"whitening is {whitening.shape} where mean has {len(mean)}")
            return cls(
                mean, whitening, float(facts["threshold"]), float(facts["false_alarms"]), facts.get("fitted_on", "")
            )
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{os.fspath(path)} is no world ({what}): write it again with `sdg calibrate`") from error


def outside_sentence(found: DefectSet) -> str | None:
    """What a person is told of a result whose picture lies outside its model's world; None for any other."""
    verdict = found.info.get("out_of_world")
    if not verdict or not verdict["outside"]:
        return None
    score = (
        ""
        if verdict["score"] is None
        else f" (distance {verdict['score']:.2f}; {verdict['threshold']:.2f} is the limit)"
    )
    return f"This picture is unlike those that the model was trained on{score}: do not rely on this answer."
