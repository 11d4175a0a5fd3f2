"""``sdg microworld``: look at the synthetic world, or draw it as a data set."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sdg.cli.progress import Advance
from sdg.cli.shared import err, refuse, writable_picture

if TYPE_CHECKING:
    from sdg.microworld.dataset import Plan


class Split(str, Enum):
    """The splits of the microworld."""

    train = "train"
    validation = "validation"
    test = "test"


def microworld(
    sheet: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Draw a sheet of --n pictures into this file.")
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, max=2000, help="How many pictures the sheet has: 100.")] = None,
    split: Annotated[Split | None, typer.Option(help="Which split the sheet shows: train.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw a data set into this folder.")] = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Draw a data set and upload it to the Hub.")
    ] = None,
    train: Annotated[int, typer.Option(min=0, help="Pictures of the data set's split train.")] = 60_000,
    validation: Annotated[int, typer.Option(min=0, help="Pictures of the split validation.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Pictures of the split test.")] = 1_000,
    uncaptioned: Annotated[
        float, typer.Option(min=0, max=1, help="Share of training pictures without a caption.")
    ] = 0.04,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of the data set's pictures in pixels.")] = 128,
    part: Annotated[int, typer.Option(min=1, help="Pictures a file of the data set.")] = 2_000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that draw; one a core where it is left out.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pictures.")] = 0,
) -> None:
    """Draw the microworld: a sheet to look at, or a data set with its card and splits.

    The data set is parquet, a folder a split, which `datasets.load_dataset` reads from the folder or from the Hub,
    whole or streaming. Splits share no scene and no caption pattern; the same options draw the same pictures. Files
    that are there are kept: run it again after a stop. --push without --out draws into a folder that is gone
    afterwards.

    Exit code: 0; 1 where it could not be written or uploaded; 2 for wrong usage and where the folder or the repository
    is refused.

    \b
    Examples:
      sdg microworld --sheet world.png --n 40 --split test
      sdg microworld --out data/microworld --train 60000 --validation 1000 --test 1000
      sdg microworld --out data/microworld --push me/microworld
    """
    if sheet is None and out is None and push is None:
        raise typer.BadParameter("say what to draw: --sheet PICTURE, --out FOLDER or --push OWNER/NAME")
    if sheet is None and (n or split):
        said = "--n" if n else "--split"
        raise typer.BadParameter(f"{said} is of --sheet; --train, --validation and --test are the sizes of a data set")
    if sheet is not None:
        n, split = n or 100, split or Split.train
        writable_picture(sheet)
        from sdg.draw import contact_sheet
        from sdg.microworld import generate

        contact_sheet(generate(n, seed, split.value)).save(sheet)
        err.print(Text(f"{sheet} written: {n} pictures of the {split.value} split"))
    if out is None and push is None:
        return
    from sdg.microworld.dataset import Plan
    from sdg.publish.push import check_name
    from sdg.upload import UploadError, check_login

    try:
        if push is not None:
            check_name(push)
            check_login(push)  # before hours of drawing
        plan = Plan(
            {"train": train, "validation": validation, "test": test},
            seed=seed,
            part=part,
            size=size,
            uncaptioned=uncaptioned,
        )
        with _folder(out) as folder:
            _draw(folder, plan, workers)
            if out is not None:
                err.print(Text(f"{out} written: {sum(plan.sizes.values()):,} pictures"), soft_wrap=True)
            if push is not None:
                _push(folder, push, private)
    except UploadError as error:
        _fail(str(error))
    except (ValueError, FileExistsError) as error:
        refuse(str(error))
    except OSError as error:
        _fail(f"{out or 'the data set'} could not be written: {error}")


def _draw(folder: Path, plan: Plan, workers: int | None) -> None:
    from sdg.microworld.dataset import write_dataset

    settings = {"seed": plan.seed, "part": plan.part, "size": plan.size, "uncaptioned": plan.uncaptioned}
    wanted = [*plan.sizes.items(), *settings.items()]
    options = [word for name, value in wanted for word in (f"--{name}", str(value))]
    command = shlex.join(["sdg", "microworld", "--out", "FOLDER", *options])
    with Advance("files", total=len(list(plan.parts()))) as bar:

        def progress(done: int, total: int) -> None:
            while bar.done < done:
                bar.add()

        write_dataset(folder, plan, workers=workers, progress=progress, command=command)


def _push(folder: Path, repo: str, private: bool) -> None:
    from sdg.publish import prepare

    with prepare("dataset", repo, folder) as ready:
        done = ready.send(private=private or None)
    typer.echo(done.address)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _fail(message: str) -> None:
    err.print(Text(f"Error: {message}", style="red"), soft_wrap=True)
    raise typer.Exit(1) from None
