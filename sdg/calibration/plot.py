"""The curves of :mod:`sdg.calibration.curves` as one figure of three panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sdg.calibration.curves import Judged
from sdg.defects import TYPES
from sdg.draw import blank_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#D55E00", "#0072B2")  # told apart with any kind of colour vision
_MARKED = (0.5, 0.9, 0.95)


def plot_confidence(judged: Judged, title: str = "") -> Figure:
    """Draw reliability, precision against recall with thresholds along the curves, and false alarms by threshold.

    Args:
        judged: defects with their confidences.
        title: of the figure.

    Returns:
        A figure; ``.savefig(path)`` writes it.

    Raises:
        ModuleNotFoundError: without matplotlib, saying how to install it.
    """
    figure = blank_figure(13, 4.2)
    reliability, exchange, alarms = figure.subplots(1, 3)

    curve = judged.reliability()
    spread = 1.96 * np.sqrt(np.maximum(curve.right * (1 - curve.right), 1e-4) / curve.size)
    reliability.plot([0, 1], [0, 1], ":", color="grey", label="exact")
    reliability.errorbar(
        curve.confidence, curve.right, spread, fmt="o-", color=_COLOURS[1], markersize=4, capsize=2, label="measured"
    )
    reliability.set(
        title=f"Reliability (ECE {judged.ece():.3f})",
        xlabel="mean confidence",
        ylabel="share that is right",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    reliability.legend(frameon=False, loc="upper left")

    for kind, (name, colour) in enumerate(zip(TYPES, _COLOURS, strict=True)):
        points = judged.precision_recall(kind)
        exchange.plot(points.recall, points.precision, "-", color=colour, label=name.value)
        for threshold in _MARKED:
            kept = np.flatnonzero(points.threshold >= threshold)
            if len(kept):
                at = points.recall[kept[-1]], points.precision[kept[-1]]
                exchange.plot(*at, "o", color=colour, markersize=4)
                place = {"xytext": (5, 4), "ha": "left"} if kind else {"xytext": (-5, -9), "ha": "right"}
                exchange.annotate(f"{threshold:g}", at, textcoords="offset points", fontsize=8, color=colour, **place)
    exchange.set(title="Precision and recall by threshold", xlabel="recall", ylabel="precision", xlim=(0, 1.02))
    exchange.set_ylim(top=1.01)
    exchange.legend(frameon=False, loc="lower left")

    thresholds = np.linspace(0, 1, 201)
    alarms.plot(thresholds, judged.false_alarms(thresholds), "-", color=_COLOURS[1])
    alarms.set(
        title="False alarms",
        xlabel="confidence threshold",
        ylabel="share of clean pictures with a defect",
        xlim=(0, 1),
    )
    alarms.set_ylim(bottom=0)
    for panel in (reliability, exchange, alarms):
        panel.grid(alpha=0.3)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure
