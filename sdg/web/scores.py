"""Results of SDG-Eval as HTML text: pure functions of what was found, everything from outside escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from sdg.defects import TYPES, DefectSet, DefectType
from sdg.web.html import NAMES, icon

if TYPE_CHECKING:
    from sdg.evaluation.report import Grid
    from sdg.evaluation.worst import ImageErrors
    from sdg.web.scoring import Unread

HEADLINES = (
    ("box_f1@0.5", "BoxF1@0.5", "boxes that fit well"),
    ("box_f1@0.1", "BoxF1@0.1", "boxes that touch"),
    ("det_type_f1", "DetTypeF1", "pictures that have one"),
    ("cln_acc", "ClnAcc", "clean pictures kept clean"),
    ("desc_cos@0.1", "DescCos", "what is wrong, in words"),
    ("imp_acc@0.1", "ImpAcc", "how much it matters"),
)
"""The paper's metrics: key, name, and what is measured, in a few words."""

MAX_UNREAD = 20


@dataclass(frozen=True)
class Side:
    """One half of a pair.

    Args:
        address: the picture with its frames, as the browser shows it; empty for an answer that could not be read, which
            must not look like a clean picture.
        defects: what is framed.
    """

    address: str
    defects: DefectSet


@dataclass(frozen=True)
class Pair:
    """Truth and prediction on one picture, or why it cannot be shown.

    Args:
        name: what the files call it.
        caption: the prompt that it was made from, empty where it is not known.
        errors: what went wrong on it.
        sides: by name, ``truth`` and ``prediction``.
        problem: why there are none.
    """

    name: str
    caption: str
    errors: ImageErrors
    sides: Mapping[str, Side]
    problem: str = ""


def remark(text: str) -> str:
    """A warning that belongs to the figures below it."""
    return f'<div class="sdg-remark" role="alert">{icon("found")}<p>{escape(text)}</p></div>'


def cards(results: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """The metrics of the paper as bars with their intervals, a card a type; a tick where the other set stands.

    Args:
        results: ``predictions`` and perhaps ``against``, from :class:`sdg.evaluation.Report`.
        names: what people call them.
    """
    result, other = results["predictions"], results.get("against")
    body = "".join(_card(t, result, other) for t in TYPES)
    key = ""
    if other is not None:
        key = (
            f'<div class="sdg-keys"><span><i class="sdg-key-bar"></i>{escape(names["predictions"])}</span>'
            f'<span><i class="sdg-key-tick"></i>{escape(names["against"])}</span></div>'
        )
    return f'<div class="sdg-cards">{body}</div>{key}'


def _card(t: DefectType, result: Mapping[str, Any], other: Mapping[str, Any] | None) -> str:
    rows = "".join(
        _metric(name, words, result[f"{t}/{key}"], result.get(f"{t}/{key}/ci"), other[f"{t}/{key}"] if other else None)
        for key, name, words in HEADLINES
    )
    return (
        f'<section class="sdg-card {t.value}" aria-label="{NAMES[t]}"><h3><i class="sdg-swatch {t.value}"></i>'
        f"{NAMES[t]}</h3><dl>{rows}</dl></section>"
    )


def _metric(name: str, words: str, value: float, ends: Sequence[float] | None, other: float | None) -> str:
    if math.isnan(value):
        shown = '<b class="sdg-faint">undefined</b>'
        track = '<div class="sdg-track" aria-hidden="true"></div>'
    else:
        span = "" if ends is None else f"<small>{ends[0]:.3f} to {ends[1]:.3f}</small>"
        shown = f"<b>{value:.3f}</b>{span}"
        marks = f'<i class="fill" style="width:{_percent(value)}%"></i>'
        if ends is not None:
            low, high = map(_percent, ends)
            marks += f'<i class="whisker" style="left:{low}%;width:{max(high - low, 0):.1f}%"></i>'
        if other is not None and not math.isnan(other):
            marks += f'<i class="tick" style="left:{_percent(other)}%"></i>'
        track = f'<div class="sdg-track" aria-hidden="true">{marks}</div>'
    beside = "" if other is None or math.isnan(other) else f'<span class="sdg-unseen">, the other {other:.3f}</span>'
    return (
        f'<div class="sdg-metric"><dt><span>{name}</span><small>{words}</small></dt>'
        f"<dd>{track}<div>{shown}{beside}</div></dd></div>"
    )


def _percent(value: float) -> float:
    return round(100 * min(max(value, 0.0), 1.0), 1)


def section(elem_id: str, title: str, body: str) -> str:
    """A part of the results under its heading; nothing where there is nothing in it."""
    return f'<section class="sdg-part" id="{elem_id}-part"><h3>{escape(title)}</h3>{body}</section>' if body else ""


def folded(title: str, body: str) -> str:
    """A part that opens at a click."""
    return f'<details class="sdg-fold"><summary>{escape(title)}</summary>{body}</details>' if body else ""


def grids(tables: Sequence[Grid], quiet: frozenset[str] = frozenset()) -> str:
    """Tables of text, their notes below.

    Args:
        tables: to show.
        quiet: names of rows that are there to compare with.
    """
    return "".join(_grid(table, quiet) for table in tables)


def _grid(table: Grid, quiet: frozenset[str]) -> str:
    rows = "".join(
        f'<tr class="{"quiet" if row[0] in quiet else "own"}"><th scope="row">{escape(row[0])}</th>'
        f"{''.join(map(_cell, row[1:]))}</tr>"
        for row in table.rows
    )
    notes = "".join(f'<p class="sdg-note">{escape(note)}</p>' for note in table.notes)
    return _table(table.title, table.header, rows) + notes


def _breakable(name: str) -> str:
    return escape(name).replace("@", "<wbr>@")


def _cell(text: str) -> str:
    value, bracket, interval = text.partition(" [")
    small = f"<small>[{escape(interval)}</small>" if bracket else ""
    faint = ' class="sdg-faint"' if text in ("-", "undefined") else ""
    return f"<td{faint}>{escape(value)}{small}</td>"


def _table(title: str, header: Sequence[str], rows: str) -> str:
    """A table that scrolls within the page where the page is narrow, by keyboard too."""
    label, head = escape(title), "".join(f'<th scope="col">{_breakable(name)}</th>' for name in header)
    return (
        f'<figure class="sdg-grid"><figcaption>{label}</figcaption><div class="sdg-scroll" tabindex="0" role="region" '
        f'aria-label="{label}"><table class="sdg-scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></figure>"
    )


def worst(rows: Sequence[tuple[str, ImageErrors]], iou: float) -> str:
    """The images with most errors; a row each."""
    if not rows:
        return '<p class="sdg-note">No image has a miss or a false alarm.</p>'
    body = "".join(
        f'<tr><th scope="row">{escape(name)}{"" if e.readable else " <small>could not be read</small>"}</th>'
        f"<td>{_kinds(e.missed)}</td><td>{_kinds(e.false_alarms)}</td><td>{_kinds(e.found)}</td></tr>"
        for name, e in rows
    )
    note = f"Found: a prediction of the same type meets the reference with an IoU of {iou:g} or more."
    table = _table("Most misses and false alarms", ("image", "missed", "false alarms", "found"), body)
    return f'<div class="sdg-worst">{table}</div><p class="sdg-note">{note}</p>'


def _kinds(numbers: Mapping[str, int]) -> str:
    said = [
        f'<span class="{t.value}"><span class="sdg-type">{number} {t.value}{"s" * (number > 1)}</span></span>'
        for t in TYPES
        if (number := numbers[t.value])
    ]
    return ", ".join(said) or '<span class="sdg-faint">none</span>'


def pairs(shown: Sequence[Pair]) -> str:
    """Truth and prediction side by side on the worst pictures."""
    return "".join(map(_pair, shown))


def _pair(pair: Pair) -> str:
    name = escape(pair.name)
    if pair.problem:
        return f'<p class="sdg-note">{name}: {escape(pair.problem)}</p>'
    said = f"missed {_kinds(pair.errors.missed)}; false alarms: {_kinds(pair.errors.false_alarms)}."
    caption = f'<p class="sdg-caption">{escape(pair.caption)}</p>' if pair.caption else ""
    sides = "".join(_side(name, title, side) for title, side in pair.sides.items())
    return (
        f'<figure class="sdg-pair"><figcaption><b>{name}</b> <span>{said}</span>{caption}</figcaption>'
        f"<div>{sides}</div></figure>"
    )


def _side(name: str, title: str, side: Side) -> str:
    if not side.address:
        told = f"{icon('unread')}The answer could not be read"
        return f'<div><small>{title}</small><div class="sdg-unshown">{told}</div></div>'
    items = "".join(
        f'<li class="{d.type.value}">{escape(d.reason) or "no reason given"}</li>' for d in side.defects.by_importance()
    )
    reasons = f"<ol>{items}</ol>" if items else "<p>no defect</p>"
    return f'<div><small>{title}</small><img src="{side.address}" alt="{name}, {title}">{reasons}</div>'


def unread(found: Sequence[Unread]) -> str:
    """The answers that could not be read: of which image, why, how they start."""
    if not found:
        return ""
    head = ("image", "why", "it starts")
    rows = "".join(
        f'<tr><th scope="row">{escape(u.image)}</th><td>{escape(u.why)}</td>'
        f"<td><code>{escape(u.text) or '(empty)'}</code></td></tr>"
        for u in found[:MAX_UNREAD]
    )
    more = f'<p class="sdg-note">And {len(found) - MAX_UNREAD} more.</p>' if len(found) > MAX_UNREAD else ""
    return f'<div class="sdg-unread">{_table("What the model wrote instead", head, rows)}</div>{more}'
