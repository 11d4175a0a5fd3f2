"""BoxF1 against the IoU threshold: at which tightness a detector's boxes stop to count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdg.defects import TYPES
from sdg.draw import blank_figure
from sdg.evaluation.counts import ImageCounts
from sdg.evaluation.metrics import Sums, estimate, ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = tuple(k / 20 for k in range(1, 20))
"""IoU 0.05, 0.10, ... 0.95."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # told apart with any kind of colour vision
_STYLES = ("-", "--", "-.", ":")


class Curve(NamedTuple):
    """BoxF1 and its interval at each threshold, (k,) each, NaN where undefined."""

    box_f1: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def box_f1_curve(counts: ImageCounts, thresholds: Sequence[float] = THRESHOLDS, ci: float = 0.95) -> dict[str, Curve]:
    """BoxF1 at many IoU thresholds, by type; the matching is the same at all of them (App. C).

    Args:
        counts: the table of counts.
        thresholds: k IoUs in 0..1.
        ci: level of the bootstrap intervals.
    """
    true = counts.true
    columns = {f"{t}/boxes": counts.columns[f"{t}/predicted"] + counts.columns[f"{t}/true"] for t in TYPES}
    for k, t in enumerate(TYPES):
        for tau in thresholds:
            met = true.image[(true.kind == k) & (true.iou >= tau)]
            columns[f"{t}@{tau}"] = np.bincount(met, minlength=len(counts)).astype(np.float64)

    def metrics(s: Sums) -> Sums:
        return {f"{t}@{tau}": ratio(2 * s[f"{t}@{tau}"], s[f"{t}/boxes"]) for t in TYPES for tau in thresholds}

    found = estimate(metrics, columns, ci)
    curves = {}
    for t in TYPES:
        keys = [f"{t}@{tau}" for tau in thresholds]
        ends = np.array([found[f"{key}/ci"] for key in keys]).reshape(-1, 2)
        curves[t.value] = Curve(np.array([found[key] for key in keys]), ends[:, 0], ends[:, 1])
    return curves


def plot_box_f1(sets: Mapping[str, ImageCounts], ci: float = 0.95) -> Figure:
    """Draw the curves of one or more sets of predictions, a panel a type, with a band for the interval.

    Args:
        sets: tables of counts by the name that the legend gives them.
        ci: level of the bands.

    Returns:
        A figure; ``.savefig(path)`` writes it.

    Raises:
        ModuleNotFoundError: without matplotlib, saying how to install it.
    """
    figure = blank_figure(9, 3.8)
    panels = figure.subplots(1, len(TYPES), sharey=True)
    for place, (name, counts) in enumerate(sets.items()):
        colour, style = _COLOURS[place % len(_COLOURS)], _STYLES[place % len(_STYLES)]
        for panel, curve in zip(panels, box_f1_curve(counts, ci=ci).values(), strict=True):
            panel.plot(THRESHOLDS, curve.box_f1, style, color=colour, label=name.replace("$", r"\$"))
            panel.fill_between(THRESHOLDS, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    for panel, t in zip(panels, TYPES, strict=True):
        panel.set(title=t.value, xlabel="IoU threshold", xlim=(0, 1), ylim=(0, 1))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("BoxF1")
    panels[-1].legend(frameon=False)
    figure.suptitle(f"BoxF1 by IoU threshold, with {100 * ci:g} % intervals over images", fontsize="medium")
    return figure
