"""``sdg push``: upload a detector, a LoRA, a generator, a data set, the metric or the page's Space to the Hub."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sdg.cli.shared import err, refuse


class What(str, Enum):
    """What can be pushed."""

    detector = "detector"
    lora = "lora"
    generator = "generator"
    dataset = "dataset"
    metric = "metric"
    space = "space"


def push(
    what: Annotated[What, typer.Argument(help="What it is.", show_default=False)],
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Where to.", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Its folder, or an embedded checkpoint's name; metric and space are assembled.", show_default=False
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, made where it does not exist; by default main.", show_default=False)
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.", show_default=False)] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(help="Of this library, for a Space; by default built from the sources.", show_default=False),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            help="Of a folder without a card, such as apache-2.0; the card is then made of what is known.",
            show_default=False,
        ),
    ] = None,
    license_link: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Text of a license that the Hub has no name for.", show_default=False),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="What it was trained from, where no file says so.", show_default=False),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="Measured results for the card: a file of sdg eval --json or of benchmarks/detector_quality.py.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Data set that it was trained on.",
            show_default=False,
        ),
    ] = None,
    measured_on: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Data set of the card's figures, which then go into .eval_results, too.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list the files, show the card; send nothing.")
    ] = False,
) -> None:
    """Upload to the Hub, in one commit, what passes the checks.

    Refused are pickles and weights that are no safetensors, secrets in files, files that are too large, and a card
    (README.md) without a license or, for models, without a base model (the tag trained-from-scratch says that there is
    none). A detector, a LoRA or a data set without a card gets one, made of what its files say and of --license,
    --base-model and --results; what is not known is not made up. The token is the one of `hf auth login` or HF_TOKEN.
    After a cut, run it again: what has arrived is not sent twice. The address is printed.

    Exit code: 0; 1 where the upload failed; 2 where it was refused.

    \b
    Examples:
      sdg push detector sdg-tiny --repo me/sdg-tiny --dry-run
      sdg push lora runs/aligned/lora --repo me/flux-aligned --private
      sdg push detector runs/mine/final --repo me/mine --license apache-2.0 --results scores.json
      sdg push space --repo me/sdg-demo
    """
    from sdg.cards import About
    from sdg.publish import prepare
    from sdg.upload import UploadError

    about = About(license, license_link, base_model, dataset, measured_on, results)
    try:
        with prepare(what.value, repo, folder, wheel, about) as ready:
            width = max(len(f"{file.size:,}") for file in ready.files)
            for file in ready.files:
                err.print(Text(f"{file.size:>{width},}  {file.path}"), soft_wrap=True)
            total = sum(file.size for file in ready.files)
            err.print(Text(f"{len(ready.files)} files, {total / 1e6:,.1f} MB, for {ready.address}"), soft_wrap=True)
            if private and ready.kind == "space":
                note = "The builder of a private Space cannot fetch the wheel from it: it starts once it is public."
                err.print(Text(note, style="yellow"), soft_wrap=True)
            if dry_run:
                err.print(Text(f"\n{ready.card}"), soft_wrap=True)
                err.print(Text("Nothing was sent (--dry-run)."))
                return
            done = ready.send(private=private or None, message=message, revision=revision)
    except UploadError as error:
        err.print(Text(f"Error: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(1) from None
    except (OSError, ValueError, ImportError) as error:
        refuse(str(error))
    for path in done.removed:
        err.print(Text(f"{path} of an earlier upload was taken away"), soft_wrap=True)
    typer.echo(done.address if revision is None else f"{done.address}/tree/{revision}")
