"""Results as tables for people (Markdown, terminal) and as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from sdg.defects import TYPES
from sdg.embedding import PAPER
from sdg.evaluation.breakdown import Parts, by_column, by_subtype, by_tier
from sdg.evaluation.compare import Difference, compare_counts
from sdg.evaluation.counts import ImageCounts
from sdg.evaluation.metrics import image_level, summarise
from sdg.evaluation.published import TABLE_2, TABLE_2_METRICS, TABLE_3_METRICS

if TYPE_CHECKING:
    from rich.table import Table

Results = Mapping[str, Mapping[str, Any]]
"""Flat results by the name of their row."""

LABELS = {
    "det_type_f1": "DetTypeF1",
    "cln_acc": "ClnAcc",
    "box_precision": "BoxPr",
    "box_recall": "BoxRe",
    "box_f1": "BoxF1",
    "desc_cos": "DescCos",
    "imp_acc": "ImpAcc",
    "image_precision": "precision",
    "image_recall": "recall",
    "image_f1": "F1",
    "parse_rate": "parse rate",
    "strict_rate": "strict rate",
}
BY_TIER, BY_SUBTYPE = "tier", "subtype"
"""Break-downs that need no column: they are of the references' own fields."""


def to_json(value: Any) -> str:
    """Results as JSON that any program reads: what is undefined is null, never NaN."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Args:
        title: what it is of.
        header: names of the columns; the first holds the rows' names.
        rows: as many cells each.
        notes: sentences below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown, title and notes included."""
        lines = [f"### {_escaped(self.title)}", ""]
        lines += [_line(self.header), _line(["---"] + ["---:"] * (len(self.header) - 1)), *map(_line, self.rows)]
        return "\n".join(lines + [part for note in self.notes for part in ("", _escaped(note))])

    def rich(self) -> Table:
        """The table for a terminal; an interval stands below its value."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title), title_justify="left", caption_justify="left")
        table.caption = Text("\n".join(self.notes)) if self.notes else None
        for place, name in enumerate(self.header):
            justify: Literal["left", "right"] = "right" if place else "left"
            table.add_column(Text(name.replace("@", "\n@")), justify=justify, overflow="fold", no_wrap=place > 0)
        for row in self.rows:
            table.add_row(Text(row[0]), *[Text(cell.replace(" [", "\n[")) for cell in row[1:]])
        return table


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _label(key: str) -> str:
    name, at, tau = key.partition("@")
    return LABELS.get(name, name) + at + tau


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _range(low: float, high: float) -> str:
    return f"[{_number(low)}, {_number(high)}]"


def _cell(result: Mapping[str, Any], key: str) -> str:
    """A metric with its interval where it has one; "-" where the result says nothing of it."""
    if key not in result:
        return "-"
    ends = result.get(f"{key}/ci")
    return _number(result[key]) + ("" if ends is None or math.isnan(result[key]) else f" {_range(*ends)}")


def _by_type(
    title: str, first: str, results: Results, metrics: Sequence[str], notes: tuple[str, ...] = ()
) -> list[Grid]:
    header = (first, *map(_label, metrics))
    return [
        Grid(
            f"{title}: {t}",
            header,
            tuple((name, *(_cell(result, f"{t}/{m}") for m in metrics)) for name, result in results.items()),
            notes if t is TYPES[-1] else (),
        )
        for t in TYPES
    ]


def table_2(results: Results, title: str = "SDG-Eval", first: str = "model") -> list[Grid]:
    """Results in the layout of the paper's Table 2, a grid a type.

    Args:
        results: rows by name, from :meth:`sdg.SDGEval.compute`, from
            :func:`sdg.evaluation.breakdown.by_column`, or from :data:`sdg.evaluation.published.TABLE_2`.
        title: what the grids are called.
        first: name of the first column.
    """
    return _by_type(title, first, results, TABLE_2_METRICS)


def with_published(results: Results) -> list[Grid]:
    """One's own rows below those of the paper's Table 2, in its layout, and what has to be known to compare them."""
    rows = {f"{name} *": row for name, row in TABLE_2.items()}
    rows |= {name: {k: v for k, v in result.items() if not k.endswith("/ci")} for name, result in results.items()}
    notes = ["* Published, on SDG-30K's test split of 1,151 images: to be compared with results on the same images."]
    others = sorted({str(r["embedder"]) for r in results.values() if r.get("embedder") not in (None, PAPER)})
    if others:
        notes.append(f"Published DescCos is of {PAPER}, the others are of {', '.join(others)}: not to be compared.")
    return _by_type("SDG-Eval beside the paper's Table 2", "model", rows, TABLE_2_METRICS, tuple(notes))


def table_3(results: Results) -> list[Grid]:
    """Image-level results in the layout of the paper's Table 3, a grid a type.

    Args:
        results: rows by name, from :func:`sdg.evaluation.image_level` or :data:`sdg.evaluation.published.TABLE_3`.
    """
    return _by_type("Image level", "model", results, TABLE_3_METRICS)


def all_metrics(name: str, result: Mapping[str, Any]) -> Grid:
    """Every metric of one set of predictions, with its intervals; a column a type."""
    artifact, misalignment = TYPES
    keys = [key.partition("/")[2] for key in result if key.startswith(f"{artifact}/") and not key.endswith("/ci")]
    notes = [f"{result['n_images']:,} images."]
    notes += [f"{_label(key).capitalize()} {_cell(result, key)}." for key in ("parse_rate", "strict_rate")]
    notes = [" ".join(notes)]
    if result["embedder"] is None:
        notes.append(f"DescCos is undefined: {result['desc_cos_note']}.")
    else:
        notes.append(f"Reasons compared by {result['embedder']}.")
    rows = [(_label(key), _cell(result, f"{artifact}/{key}"), _cell(result, f"{misalignment}/{key}")) for key in keys]
    return Grid(f"{name}: every metric", ("metric", artifact.value, misalignment.value), tuple(rows), tuple(notes))


def recall_table(title: str, parts: Parts) -> Grid:
    """What :func:`sdg.evaluation.breakdown.by_tier` or ``by_subtype`` found, a row a type and part that occurs."""
    metrics = list(dict.fromkeys(k.partition("/")[2] for part in parts.values() for k in part if "box_recall" in k))
    metrics = [metric for metric in metrics if not metric.endswith("/ci")]
    rows = [
        (f"{t}, {name}", f"{part[f'{t}/n_true']:,}", *(_cell(part, f"{t}/{m}") for m in metrics))
        for t in TYPES
        for name, part in parts.items()
        if part[f"{t}/n_true"]
    ]
    note = "Recall only: a prediction that answers no reference belongs to no part."
    return Grid(title, ("references", "how many", *map(_label, metrics)), tuple(rows), (note,))


def comparison_table(first: str, second: str, differences: Mapping[str, Difference]) -> Grid:
    """What :func:`sdg.evaluation.compare.compare_counts` found; a row a metric."""
    rows = []
    for key, d in differences.items():
        kind, slash, metric = key.rpartition("/")
        known = not math.isnan(d.difference)
        rows.append(
            (
                f"{kind} {_label(metric)}" if slash else _label(key),
                _number(d.value),
                _number(d.against),
                f"{d.difference:+.3f} {_range(d.low, d.high)}" if known else "undefined",
                f"{d.p_value:.4f}" if known else "undefined",
            )
        )
    note = (
        "Difference with its paired bootstrap interval; p of a two-sided permutation test over images, not corrected "
        f"for looking at {len(rows)} metrics."
    )
    return Grid(f"{first} against {second}", ("metric", first, second, "difference", "p"), tuple(rows), (note,))


@dataclass(frozen=True)
class Report:
    """All that is said about one set of predictions, or about two of the same images.

    Args:
        names: what people call each set, by its key: ``predictions``, and ``against`` where there is one.
        matching: how predictions were matched.
        ci: level of the intervals, or None.
        results: by key, the flat dictionary of :meth:`sdg.SDGEval.compute`.
        image_level: by key, see :func:`sdg.evaluation.image_level`.
        comparison: by metric, where there are two sets.
        by: break-downs by column and key.
    """

    names: Mapping[str, str]
    matching: str
    ci: float | None
    results: Mapping[str, dict[str, Any]]
    image_level: Mapping[str, dict[str, Any]]
    comparison: Mapping[str, Difference] | None
    by: Mapping[str, Mapping[str, Parts]]

    @classmethod
    def of(
        cls,
        counts: Mapping[str, ImageCounts],
        names: Mapping[str, str],
        columns: Mapping[str, Sequence[Any] | None] | None = None,
        ci: float | None = 0.95,
    ) -> Report:
        """Summarise tables of counts.

        Args:
            counts: ``predictions``, and perhaps ``against``.
            names: what people call them, by the same keys.
            columns: values, one an image, by the name of the column to break down by; ``tier`` and ``subtype`` are
                those of the references where their values are None.
            ci: None, or the level of the intervals.
        """

        def parts(name: str, values: Sequence[Any] | None, table: ImageCounts) -> Parts:
            if values is None:
                return (by_tier if name == BY_TIER else by_subtype)(table, ci)
            return by_column(table, values, ci)

        first, second = counts["predictions"], counts.get("against")
        return cls(
            names=names,
            matching=first.matching,
            ci=ci,
            results={key: summarise(table, ci) for key, table in counts.items()},
            image_level={key: image_level(table, ci) for key, table in counts.items()},
            comparison=None if second is None else compare_counts(first, second, ci or 0.95),
            by={
                name: {key: parts(name, values, table) for key, table in counts.items()}
                for name, values in (columns or {}).items()
            },
        )

    def sections(self) -> dict[str, list[Grid]]:
        """The report as tables by what they are about, the most asked for first; what there is nothing of is left out.

        Returns:
            ``published``, ``metrics``, ``image level``, ``comparison``, and ``by COLUMN`` for each break-down.
        """
        named = {self.names[key]: result for key, result in self.results.items()}
        sections = {
            "published": with_published(named),
            "metrics": [all_metrics(name, result) for name, result in named.items()],
            "image level": table_3({self.names[key]: result for key, result in self.image_level.items()}),
        }
        if self.comparison is not None:
            sections["comparison"] = [
                comparison_table(self.names["predictions"], self.names["against"], self.comparison)
            ]
        for column, sets in self.by.items():
            for key, parts in sets.items():
                title = f"{self.names[key]} by {column}"
                grids = sections.setdefault(f"by {column}", [])
                if any("n_images" in part for part in parts.values()):
                    rows = {f"{name} ({part['n_images']:,} images)": part for name, part in parts.items()}
                    grids += table_2(rows, title, column)
                else:
                    grids.append(recall_table(title, parts))
        return sections

    def grids(self) -> list[Grid]:
        """All tables of :meth:`sections`, one after the other."""
        return [grid for grids in self.sections().values() for grid in grids]

    def markdown(self) -> str:
        """The report as a Markdown document."""
        names = " against ".join(self.names.values())
        head = f"## SDG-Eval of {_escaped(names)}\n\nMatching: {self.matching}, one to one within an image and a type."
        head += f" Intervals: {100 * self.ci:g} %, bootstrap over images." if self.ci else ""
        return "\n\n".join([head, *(grid.markdown() for grid in self.grids())]) + "\n"

    def to_json(self, **about: Any) -> str:
        """The report as JSON; what is undefined is null.

        Args:
            **about: what is to stand before it, such as :func:`sdg.provenance.made_by`.
        """
        return to_json(about | {field: getattr(self, field) for field in self.__dataclass_fields__})
