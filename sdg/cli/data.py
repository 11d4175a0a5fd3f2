"""``sdg data``: check, count, convert and split data sets of defects, in any layout that is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sdg.cli.progress import Advance
from sdg.cli.shared import PLOTS, Order, check_plot, check_writable, err, out, refuse

if TYPE_CHECKING:
    from sdg.readers import Reading
    from sdg.records import Record

app = typer.Typer(no_args_is_help=True, help="Data sets of defects: check, count, convert and split them.")

STDOUT = Path("-")


class Policy(str, Enum):
    """What a reader does with a record that something is wrong with."""

    stop = "raise"
    skip = "skip"
    mend = "mend"


class Form(str, Enum):
    """What records are written as."""

    parquet = "parquet"
    imagefolder = "imagefolder"
    jsonl = "jsonl"


Source = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A folder or file in a known layout, or a Hub id.", show_default=False),
]
LayoutOption = Annotated[str | None, typer.Option(help="Its layout; recognised where it is left out.")]
SplitOption = Annotated[str | None, typer.Option(help="One of its splits; all where it is left out.")]
OrderOption = Annotated[
    Order | None, typer.Option(help="Order of its boxes' coordinates, where the layout does not declare it.")
]
PolicyOption = Annotated[
    Policy,
    typer.Option(
        help="What to do with a record that something is wrong with: stop there, leave it out, or mend what can be."
    ),
]
JsonOption = Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write it as JSON, too; - is stdout.")]


@app.command()
def validate(
    source: Source,
    layout: LayoutOption = None,
    split: SplitOption = None,
    order: OrderOption = None,
    policy: PolicyOption = Policy.skip,
    json_file: JsonOption = None,
) -> None:
    """Say what is wrong with a data set, and how often.

    Exit code: 0 where nothing is wrong, 1 where something is, 2 for wrong usage and what cannot be read at all.

    \b
    Examples:
      sdg data validate SDG-30K/
      sdg data validate P1n3/SDG-30K --split test
      sdg data validate annotations.json --layout coco --policy raise
      sdg data validate gemini.jsonl --order yxyx --json report.json
    """
    _check_json(json_file)
    reading = _open(source, layout, split, order, policy)
    for _ in _records(reading, wrong=1):
        pass
    report = reading.report
    if json_file != STDOUT:
        _print_report(source, reading)
    _write_json(json_file, {"source": source, "layout": reading.layout, "order": reading.order, **report.to_json()})
    raise typer.Exit(1 if report.counts else 0)


@app.command()
def stats(
    source: Source,
    layout: LayoutOption = None,
    split: SplitOption = None,
    order: OrderOption = None,
    policy: PolicyOption = Policy.skip,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help=f"Draw it, after the paper's Figure 3 ({', '.join(PLOTS)}).")
    ] = None,
) -> None:
    """Count defects in a picture, what pictures hold, and importance by generator.

    Exit code: 0, or 2 for wrong usage and what cannot be read.

    \b
    Examples:
      sdg data stats SDG-30K/ --split train
      sdg data stats P1n3/SDG-30K --json stats.json --plot figure3.png
    """
    from sdg.cli.counts import summary, tables
    from sdg.statistics import collect, plot_statistics

    _check_json(json_file)
    check_plot(plot)
    reading = _open(source, layout, split, order, policy, images=False)
    try:
        statistics = collect(_records(reading))
    except ValueError as error:
        refuse(f"{source}: {error}")
    _warn_of(reading)
    if not statistics.images:
        refuse(f"{source} holds no record")
    if json_file != STDOUT:
        out.print(Text(summary(statistics)), soft_wrap=True)
        out.print()
        for table in tables(statistics):
            out.print(table)
            out.print()
    _write_json(json_file, statistics.to_json())
    if plot is not None:
        try:
            plot_statistics(statistics, Path(source).name).savefig(plot, dpi=150)
        except OSError as error:
            refuse(str(error))
        err.print(Text(f"{plot} written"))


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="What to write.", show_default=False)],
    form: Annotated[Form, typer.Option("--to", help="What records are written as.")] = Form.parquet,
    layout: LayoutOption = None,
    split: SplitOption = None,
    order: OrderOption = None,
    policy: PolicyOption = Policy.stop,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
) -> None:
    """Write a data set of any known layout as this library's own: parquet, an image folder or JSON lines.

    OUT is put in place when it is whole: what is there is never half of it.

    Exit code: 0, or 2 for wrong usage and what cannot be read or written.

    \b
    Examples:
      sdg data convert SDG-30K/ sdg30k.parquet
      sdg data convert annotations.json boxes/ --layout coco --to imagefolder
      sdg data convert gemini.jsonl clean.jsonl --to jsonl --order yxyx --policy skip
    """
    from sdg.records import write_records

    with _whole(target, overwrite) as unfinished:
        reading = _open(source, layout, split, order, policy)
        count = write_records(_records(reading), unfinished, form.value)
    _warn_of(reading)
    err.print(Text(f"{target} written: {count:,} records"))


@app.command("split")
def split_by_prompt(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)],
    train: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the records; what the others leave.", show_default=False),
    ] = None,
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of the records.")] = 0.05,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of the records.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Same records and seed, same splits.")] = 0,
    form: Annotated[Form, typer.Option("--to", help="What records are written as.")] = Form.parquet,
    layout: LayoutOption = None,
    split: SplitOption = None,
    order: OrderOption = None,
    policy: PolicyOption = Policy.stop,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
) -> None:
    """Split a data set by prompt: no caption stands in two splits.

    Captions that differ in case or white space only are one. The splits depend on the captions and the seed, not on
    the order of the records. OUT is put in place when it is whole.

    Exit code: 0, or 2 for wrong usage and what cannot be read or written.

    \b
    Examples:
      sdg data split SDG-30K/ splits/
      sdg data split mine.jsonl splits/ --validation 0 --test 0.1 --seed 7
      sdg data split P1n3/SDG-30K splits/ --split train --train 0.98 --validation 0.02 --test 0
    """
    from sdg.records import write_records
    from sdg.splits import PromptSplit

    if train is None:
        train = round(1 - validation - test, 9)
        if train < 0:
            raise typer.BadParameter(f"--validation {validation:g} and --test {test:g} are more than all records")
    shares = {"train": train, "validation": validation, "test": test}
    with _whole(target, overwrite) as unfinished:
        reading = _open(source, layout, split, order, policy)
        prompts = {record.id: record.caption for record in _records(reading)}
        parts = PromptSplit(((caption, id) for id, caption in prompts.items()), shares, seed)
        unfinished.mkdir()
        for name, count in parts.counts.items():
            if count:
                # Which records are good is known; their pictures go from file to file without being opened.
                again = _open(source, layout, split, order, policy, images=False)
                chosen = (r for r in _records(again) if r.id in prompts and parts.of(prompts[r.id], r.id) == name)
                place = unfinished / (f"{name}.jsonl" if form is Form.jsonl else name)
                write_records((record.replace(split=name) for record in chosen), place, form.value)
    _warn_of(reading)
    for name, count in parts.counts.items():
        err.print(Text(f"{target / name}: {count:,} records"))


def _open(
    source: str, layout: str | None, split: str | None, order: Order | None, policy: Policy, images: bool = True
) -> Reading:
    from sdg.readers import read

    try:
        return read(
            source,
            layout,
            split=split,
            order=None if order is None else order.value,
            policy=policy.value,
            images=images,
        )
    except (OSError, ValueError) as error:
        refuse(str(error))


def _records(reading: Reading, total: int | None = None, wrong: int = 2) -> Iterator[Record]:
    """The records with progress; what ends the reading ends the command, with exit code ``wrong``."""
    with Advance("records", total) as progress:
        try:
            for record in reading:
                yield record
                progress.add()
        except (OSError, ValueError) as error:
            err.print(Text(f"Error: {error}", style="red"), soft_wrap=True)
            raise typer.Exit(wrong) from None


@contextmanager
def _whole(target: Path, overwrite: bool) -> Iterator[Path]:
    """Where to write what becomes ``target`` once it is whole."""
    if target.exists() and not overwrite:
        raise typer.BadParameter(f"OUT {target} exists already: write elsewhere, or replace it with --overwrite")
    if not target.absolute().parent.is_dir():
        raise typer.BadParameter(f"OUT {target} cannot be written: the folder {target.parent} does not exist")
    unfinished = target.absolute().with_name(f".unfinished-{target.absolute().name}")
    _remove(unfinished)
    try:
        yield unfinished
        _remove(target)
        unfinished.rename(target)
    except (OSError, ValueError) as error:
        refuse(str(error))
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _print_report(source: str, reading: Reading) -> None:
    report = reading.report
    done = f"{report.n_records:,} records with {report.n_defects:,} defects"
    out.print(Text(f"{source}: {done}, {report.n_skipped:,} left out, {report.n_mended:,} mended"), soft_wrap=True)
    out.print(Text(f"layout {reading.layout}, boxes {reading.order or 'none'}"))
    if not report.counts:
        out.print(Text("nothing is wrong", style="green"))
        return
    table = Table(show_lines=True)
    table.add_column("problem", overflow="fold")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("examples", overflow="fold", ratio=1)
    for problem, count in report.counts.most_common():
        table.add_row(Text(problem), f"{count:,}", Text("\n".join(map(str, report.examples[problem]))))
    out.print(table)


def _warn_of(reading: Reading) -> None:
    """Say what was left out or mended, so that nobody takes the rest for all."""
    report = reading.report
    for count, what in ((report.n_skipped, "left out"), (report.n_mended, "mended")):
        if count:
            found = ", ".join(f"{problem} {n}" for problem, n in report.counts.most_common())
            err.print(Text(f"Warning: {count} records {what} ({found})", style="yellow"), soft_wrap=True)


def _check_json(path: Path | None) -> None:
    if path != STDOUT:
        check_writable("--json", path)


def _write_json(path: Path | None, values: dict[str, Any]) -> None:
    if path is None:
        return
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path == STDOUT:
        typer.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(str(error))
    err.print(Text(f"{path} written"))
