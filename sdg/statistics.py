"""What a data set of defects holds, as in the paper's Figure 3: density, composition, importance by generator.

Counting goes record by record and keeps nothing but counts, so that any number of records fits into memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sdg.defects import TIERS, TYPES, DefectSet, DefectType
from sdg.draw import blank_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPOSITION = ("clean", "artifact only", "misalignment only", "both")
"""What a picture can hold, in the order in which the paper tells of it (§3.4)."""

NOT_GIVEN = "not given"
"""The part of what has no generator, or no importance."""

ALL = "all"
"""Defects of either type."""

_COLOURS = {ALL: "#8A8A8A", "artifact": "#D55E00", "misalignment": "#0072B2"}
_MIXES = dict(zip(COMPOSITION, ("#8FBF9F", "#D55E00", "#0072B2", "#7B5EA7"), strict=True))
_TIER_COLOURS = {
    **dict(zip(TIERS, ("#7F1D1D", "#C2410C", "#F59E0B", "#FCD98A", "#F5E6B8"), strict=True)),
    NOT_GIVEN: "#D4D4D4",
}
_MOST_DEFECTS = 10
_MOST_GENERATORS = 12


class Annotated(Protocol):
    """What is counted: a record of a data set, or anything with these two attributes."""

    @property
    def defects(self) -> DefectSet: ...
    @property
    def generator(self) -> str | None: ...


class Statistics:
    """Counts over records; :meth:`add` takes one more.

    Attributes:
        images: number of pictures.
        defects: number of defects, by type.
        density: for ``all``, ``artifact`` and ``misalignment``: how many pictures have 0, 1, 2, ... of them.
        composition: how many pictures are of each of :data:`COMPOSITION`.
        images_by: how many pictures each generator has.
        tiers: by generator, how many defects each importance tier has.
    """

    def __init__(self) -> None:
        self.images = 0
        self.defects: Counter[str] = Counter()
        self.density: dict[str, Counter[int]] = {name: Counter() for name in (ALL, *map(str, TYPES))}
        self.composition: Counter[str] = Counter()
        self.images_by: Counter[str] = Counter()
        self.tiers: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, record: Annotated) -> None:
        """Count one record.

        Raises:
            ValueError: for a picture that nobody looked at, whose empty set says nothing.
        """
        if record.defects.parse_error is not None:
            raise ValueError(f"a picture without annotation cannot be counted: {record.defects.parse_error}")
        count = {t.value: len(record.defects.of_type(t)) for t in TYPES}
        generator = record.generator or NOT_GIVEN
        self.images += 1
        self.images_by[generator] += 1
        self.composition[composition_of(record.defects)] += 1
        self.defects.update(count)
        for name, number in {ALL: sum(count.values()), **count}.items():
            self.density[name][number] += 1
        self.tiers[generator].update(defect.tier or NOT_GIVEN for defect in record.defects)

    def to_json(self) -> dict[str, Any]:
        """The counts, and shares of them in 0..1 (None where there is nothing to share), as plain JSON values."""
        return {
            "images": self.images,
            "defects": {str(t): self.defects[t.value] for t in TYPES},
            "composition": {
                name: {"images": self.composition[name], "share": share(self.composition[name], self.images)}
                for name in COMPOSITION
            },
            "density": {
                name: {
                    "mean": share(sum(k * n for k, n in counts.items()), self.images),
                    "images": {str(k): counts[k] for k in range(max(counts, default=-1) + 1)},
                }
                for name, counts in self.density.items()
            },
            "importance_by_generator": {
                name: {
                    "images": self.images_by[name],
                    "defects": self.tiers[name].total(),
                    "tiers": {tier: self.tiers[name][tier] for tier in self.tier_names},
                }
                for name in self.generators
            },
        }

    @property
    def generators(self) -> list[str]:
        """Names of the generators, by alphabet; "not given" comes last."""
        return sorted(self.images_by, key=lambda name: (name == NOT_GIVEN, name))

    @property
    def tier_names(self) -> list[str]:
        """The tiers from critical down, and "not given" where a defect has no importance."""
        lacking = any(counts[NOT_GIVEN] for counts in self.tiers.values())
        return [*TIERS, NOT_GIVEN] if lacking else [*TIERS]


def collect(records: Iterable[Annotated]) -> Statistics:
    """The statistics of records, taken one at a time.

    Raises:
        ValueError: as :meth:`Statistics.add`.
    """
    statistics = Statistics()
    for record in records:
        statistics.add(record)
    return statistics


def composition_of(defects: DefectSet) -> str:
    """Which of :data:`COMPOSITION` a picture is."""
    artifact, misalignment = (bool(defects.of_type(t)) for t in (DefectType.ARTIFACT, DefectType.MISALIGNMENT))
    return COMPOSITION[artifact + 2 * misalignment]


def share(part: float, whole: int) -> float | None:
    """``part / whole``; None where there is no whole."""
    return part / whole if whole else None


def plot_statistics(statistics: Statistics, title: str = "") -> Figure:
    """Draw density, composition and importance tiers by generator in three panels, after the paper's Figure 3.

    Args:
        statistics: the counts.
        title: written over the panels, before the number of pictures and defects.

    Returns:
        A figure; ``.savefig(path)`` writes it.

    Raises:
        ModuleNotFoundError: without matplotlib, saying how to install it.
    """
    rows = min(len(statistics.images_by), _MOST_GENERATORS + 1)
    figure = blank_figure(13, max(4, 1.7 + 0.3 * rows))
    density, composition, tiers = figure.subplots(1, 3, width_ratios=(1.15, 0.9, 1.3))
    _plot_density(density, statistics)
    _plot_composition(composition, statistics)
    _plot_tiers(tiers, statistics)
    figure.legend(
        *tiers.get_legend_handles_labels(), frameon=False, ncols=len(_TIER_COLOURS), loc="outside lower right"
    )
    said = f"{statistics.images:,} pictures, {statistics.defects.total():,} defects"
    figure.suptitle(_plain(f"{title}: {said}" if title else said), fontsize="medium")
    return figure


def _plot_density(panel: Axes, statistics: Statistics) -> None:
    last = min(max(statistics.density[ALL], default=0), _MOST_DEFECTS)
    for place, (name, counts) in enumerate(statistics.density.items()):
        pictures = [counts[k] for k in range(last)] + [sum(n for k, n in counts.items() if k >= last)]
        shares = [100 * (share(n, statistics.images) or 0) for n in pictures]
        panel.bar([k + (place - 1) * 0.28 for k in range(last + 1)], shares, 0.28, color=_COLOURS[name], label=name)
    beyond = max(statistics.density[ALL], default=0) > last
    panel.set_xticks(range(last + 1), [*map(str, range(last)), f"{last}+" if beyond else str(last)])
    panel.set(title="density", xlabel="defects in a picture", ylabel="% of pictures")
    panel.grid(axis="y", alpha=0.3)
    panel.set_axisbelow(True)
    panel.legend(frameon=False)


def _plot_composition(panel: Axes, statistics: Statistics) -> None:
    shares = [100 * (share(statistics.composition[name], statistics.images) or 0) for name in COMPOSITION]
    bars = panel.barh(range(len(COMPOSITION)), shares, 0.65, color=list(_MIXES.values()))
    panel.bar_label(bars, [f"{value:.1f} %" for value in shares], padding=4)
    panel.set_yticks(range(len(COMPOSITION)), [name.replace(" only", "\nonly") for name in COMPOSITION])
    panel.set(title="composition", xlabel="% of pictures", xlim=(0, max(1.0, max(shares)) * 1.4))
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)
    panel.set_axisbelow(True)


def _plot_tiers(panel: Axes, statistics: Statistics) -> None:
    parts = _most(statistics)
    totals = [sum(counts.values()) for _, counts in parts]
    left = [0.0] * len(parts)
    for tier in statistics.tier_names:
        width = [100 * (share(counts[tier], total) or 0) for (_, counts), total in zip(parts, totals, strict=True)]
        panel.barh(range(len(parts)), width, 0.7, left=left, color=_TIER_COLOURS[tier], label=tier, linewidth=0)
        left = [a + b for a, b in zip(left, width, strict=True)]
    names = [f"{_shortened(name)} ({total:,})" for (name, _), total in zip(parts, totals, strict=True)]
    panel.set_yticks(range(len(parts)), names)
    panel.set(title="importance by generator (defects)", xlabel="% of defects", xlim=(0, 100))
    panel.set_ylim(max(len(parts), 3) - 0.5, -0.5)  # from the top down; a single bar does not fill the panel


def _most(statistics: Statistics) -> Sequence[tuple[str, Counter[str]]]:
    """The generators with the most defects, and the others together."""
    names = sorted(statistics.generators, key=lambda name: -statistics.tiers[name].total())
    shown, others = names[:_MOST_GENERATORS], names[_MOST_GENERATORS:]
    parts = [(name, statistics.tiers[name]) for name in statistics.generators if name in shown]
    if others:
        together: Counter[str] = Counter()
        for name in others:
            together.update(statistics.tiers[name])
        parts.append((f"{len(others)} others", together))
    return parts


def _shortened(name: str, most: int = 28) -> str:
    """Cut in the middle: names of one family differ at their ends."""
    half = (most - 1) // 2
    return _plain(name if len(name) <= most else f"{name[:half]}…{name[-half:]}")


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
