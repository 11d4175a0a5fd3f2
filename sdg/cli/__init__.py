"""The ``sdg`` command, one module a command. Heavy imports happen inside them, so that ``--help`` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from sdg import __version__
from sdg.cli import data
from sdg.cli.calibrate import calibrate
from sdg.cli.detect import detect
from sdg.cli.evaluate import evaluate
from sdg.cli.metric import install_metric
from sdg.cli.microworld import microworld
from sdg.cli.push import push
from sdg.cli.refine import refine

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Structured Defect Grounding: where a generated picture fails, what is wrong, why, and how much.",
)
app.command()(detect)
app.command()(refine)
app.command("eval")(evaluate)
app.add_typer(data.app, name="data")
app.command()(microworld)
app.command()(calibrate)
app.command()(push)
app.command("install-metric")(install_metric)


def main() -> None:
    """Run the command line."""
    app()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sdg {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Structured Defect Grounding: where a generated picture fails, what is wrong, why, and how much."""
