"""Tables of what a data set holds, for ``sdg data stats``."""

from __future__ import annotations

from rich import box
from rich.table import Table

from sdg.defects import TYPES
from sdg.statistics import ALL, COMPOSITION, Statistics, share

_LAST_ROW = 10


def summary(statistics: Statistics) -> str:
    """How many pictures and defects there are, in one line."""
    said = ", ".join(f"{statistics.defects[t.value]:,} of type {t}" for t in TYPES)
    return f"{statistics.images:,} pictures, {statistics.defects.total():,} defects ({said})"


def tables(statistics: Statistics) -> list[Table]:
    """Composition, density, and importance tiers by generator."""
    return [_composition(statistics), _density(statistics), _importance(statistics)]


def _composition(statistics: Statistics) -> Table:
    table = _table("Composition", "a picture holds")
    _columns(table, "pictures", "share")
    for name in COMPOSITION:
        table.add_row(
            name, f"{statistics.composition[name]:,}", _percent(statistics.composition[name], statistics.images)
        )
    return table


def _density(statistics: Statistics) -> Table:
    table = _table("Density", "defects in a picture")
    _columns(table, *statistics.density)
    last = max(statistics.density[ALL], default=0)
    for number in range(min(last, _LAST_ROW) + 1):
        beyond = number == _LAST_ROW and last > _LAST_ROW
        held = [
            sum(n for k, n in counts.items() if k == number or (beyond and k > number))
            for counts in statistics.density.values()
        ]
        table.add_row(f"{number}{' or more' if beyond else ''}", *[_percent(n, statistics.images) for n in held])
    means = [share(sum(k * n for k, n in counts.items()), statistics.images) for counts in statistics.density.values()]
    table.add_section()
    table.add_row("mean", *["-" if mean is None else f"{mean:.2f}" for mean in means])
    return table


def _importance(statistics: Statistics) -> Table:
    table = _table("Importance by generator", "generator")
    _columns(table, "pictures", "defects", *statistics.tier_names)
    for name in statistics.generators:
        counts = statistics.tiers[name]
        tiers = [_percent(counts[tier], counts.total()) for tier in statistics.tier_names]
        table.add_row(name, f"{statistics.images_by[name]:,}", f"{counts.total():,}", *tiers)
    return table


def _table(title: str, first: str) -> Table:
    # Without lines between them eight columns fit a terminal of 80.
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold", min_width=10)
    return table


def _columns(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _percent(part: int, whole: int) -> str:
    value = share(part, whole)
    return "-" if value is None else f"{100 * value:.1f} %"
