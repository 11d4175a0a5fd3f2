"""``sdg eval``: predictions and references in JSON lines; the tables of SDG-Eval out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sdg.cli.shared import PLOTS, Order, check_plot, check_writable, err, out, refuse
from sdg.provenance import made_by, typed

if TYPE_CHECKING:
    from sdg.evaluation import ImageCounts, Report


class Matching(str, Enum):
    """How predictions are matched with references."""

    hungarian = "hungarian"
    greedy = "greedy"


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="JSON lines.", exists=True, dir_okay=False, show_default=False)
    ],
    references: Annotated[
        Path, typer.Argument(metavar="REFERENCES", help="JSON lines.", exists=True, dir_okay=False, show_default=False)
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Other predictions of the same pictures: differences and p-values.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Break down by a field of the lines, or by the references' tier or subtype (recall). Repeatable.",
        ),
    ] = None,
    ci: Annotated[float, typer.Option(help="Level of the intervals over pictures; 0 for none.")] = 0.95,
    matching: Annotated[
        Matching, typer.Option(help="hungarian is the paper's, greedy its released code's.")
    ] = Matching.hungarian,
    embedder: Annotated[
        str,
        typer.Option(
            help="What compares reasons: auto (all-MiniLM-L6-v2), none, or a sentence-transformers model, such as "
            "Qwen/Qwen3-Embedding-0.6B, the paper's."
        ),
    ] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write all numbers as JSON; undefined ones are null.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the tables as Markdown.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help=f"Draw BoxF1 against the IoU threshold ({', '.join(PLOTS)})."),
    ] = None,
    order: Annotated[
        Order,
        typer.Option(help="Order of the coordinates in PREDICTIONS and OTHER. References are always xyxy."),
    ] = Order.xyxy,
) -> None:
    """Score predicted defects against the true ones: SDG-Eval, beside the paper's rows.

    \b
    Both files hold one JSON object a line.
    REFERENCES: `defects`, a list of {box, type, reason, importance}; the box is
      x0, y0, x1, y1 on a grid of 0 to 1000; a clean picture has an empty list.
    PREDICTIONS: the same, or the model's text as `response`, or what
      `sdg detect --json` prints. What cannot be read counts as empty and lowers
      the parse rate.
    Lines belong together by `id` (or `image`) where both files have it, else by
      their place.

    Exit code: 0, or 2 for wrong usage and bad input.

    \b
    Examples:
      sdg eval predictions.jsonl references.jsonl
      sdg eval predictions.jsonl references.jsonl --against before.jsonl
      sdg eval predictions.jsonl references.jsonl --by generator --by tier --markdown report.md
      sdg eval gemini.jsonl references.jsonl --order yxyx --json scores.json --plot boxes.png
    """
    for option, path in (("--json", json_file), ("--markdown", markdown), ("--plot", plot)):
        check_writable(option, path)
    check_plot(plot)
    try:
        report, tables, warnings = _scored(predictions, references, against, by or [], ci, matching, embedder, order)
    except (OSError, ValueError, RuntimeError) as error:
        refuse(str(error))
    for grid in report.grids():
        out.print(grid.rich())
        out.print()
    for warning in warnings:
        err.print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=True)
    try:
        if json_file is not None:
            given = {"--against": against, "--ci": ci, "--matching": matching.value, "--embedder": embedder}
            command = _command(predictions, references, given | {"--order": order.value}, by or [])
            data = {"name": references.name}
            json_file.write_text(report.to_json(**made_by(command), data=data) + "\n", encoding="utf-8")
        if markdown is not None:
            markdown.write_text(report.markdown(), encoding="utf-8")
        if plot is not None:
            from sdg.evaluation.plot import plot_box_f1

            plot_box_f1({report.names[key]: table for key, table in tables.items()}, ci or 0.95).savefig(plot, dpi=150)
    except OSError as error:
        refuse(str(error))
    for path in filter(None, (json_file, markdown, plot)):
        err.print(Text(f"{path} written"))


DEFAULTS = {"--against": None, "--ci": 0.95, "--matching": "hungarian", "--embedder": "auto", "--order": "xyxy"}


def _command(predictions: Path, references: Path, given: Mapping[str, object], by: list[str]) -> str:
    """The command as it can be typed again."""
    options = [word for name, value in given.items() if value != DEFAULTS[name] for word in (name, str(value))]
    return typed(["sdg", "eval", str(predictions), str(references), *options, *(w for b in by for w in ("--by", b))])


def _scored(
    predictions: Path,
    references: Path,
    against: Path | None,
    by: list[str],
    ci: float,
    matching: Matching,
    embedder: str,
    order: Order,
) -> tuple[Report, Mapping[str, ImageCounts], list[str]]:
    """The report, its tables of counts, and what to warn of."""
    from sdg.evaluation import SDGEval
    from sdg.evaluation.scoring import read_lines, score_lines

    metric = SDGEval(None if embedder == "none" else embedder, matching.value, ci or None)
    paths = {"predictions": predictions} | ({"against": against} if against else {})
    lines = read_lines(paths, references, order.value)
    names = {key: path.name for key, path in paths.items()}
    if len(set(names.values())) < len(names):
        names = {key: f"{path} ({key})" for key, path in paths.items()}
    with err.status("Comparing reasons"):
        scored = score_lines(lines, metric, names, by)
    other = next(o.value for o in Order if o is not order)
    warnings = [
        f"{paths[key]}: {given} boxes fit a reference as they are, {exchanged} with x and y exchanged. Are their "
        f"coordinates {other}? (--order {other})"
        for key, (given, exchanged) in scored.transposed.items()
    ]
    return scored.report, scored.tables, warnings
