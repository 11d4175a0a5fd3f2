"""What commands over many pictures share: which pictures their arguments name, and where results may not go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdg.jobs.run import Picture


Images = Annotated[
    list[str] | None,
    typer.Argument(
        help="Picture files, folders of them, or one data set: a folder or file in a known layout, or a Hub id.",
        metavar="IMAGE|DATASET",
        show_default=False,
    ),
]
Captions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A caption for each picture: .jsonl, .csv or .tsv with image and caption columns, which lists the "
        "pictures itself; or .txt with one line a picture, in their order.",
        exists=True,
        dir_okay=False,
    ),
]
Split = Annotated[str | None, typer.Option(help="Which split of DATASET; all where it is left out.")]
Layout = Annotated[str | None, typer.Option(help="DATASET's layout, where it is not recognised.")]
"""Arguments of the commands that look at many pictures."""

STOPPED = 130
"""What shells report of a command that was stopped with Ctrl-C."""


def listed(
    places: list[str], caption: str | None, captions: Path | None, split: str | None, layout: str | None
) -> tuple[Iterable[Picture], int | None]:
    """The pictures that the arguments name, and how many, where that is known."""
    from sdg.jobs import pictures as sources

    if caption is not None and captions is not None:
        raise typer.BadParameter("--caption is for all pictures, --captions for each: give one of them")
    if captions is not None and captions.suffix.lower() in sources.TABLES:
        if len(places) > 1 or (places and not Path(places[0]).is_dir()):
            raise typer.BadParameter(
                f"--captions {captions} lists the pictures itself: leave IMAGE out, or give the one folder that its "
                "paths are relative to"
            )
        found = sources.from_table(captions, places[0] if places else None)
        return found, len(found)
    if not places:
        raise typer.BadParameter("Missing argument: give pictures, a folder, a data set, or --captions with a table")
    if caption is None and captions is None and _is_data_set(places, split, layout):
        return sources.from_data_set(places[0], layout, split)
    if captions is not None and captions.suffix.lower() != ".txt":
        raise typer.BadParameter(f"--captions {captions} ends in none of {', '.join(sources.TABLES)}, .txt")
    found = sources.in_places(places, caption)
    if captions is not None:
        found = sources.captioned(found, captions)
    return found, len(found)


def check_apart(places: list[str], options: Mapping[str, Path | None]) -> None:
    """Refuse to write into a folder that is read: the next run would take results for pictures and records."""
    for option, written in options.items():
        for place in filter(Path.is_dir, map(Path, places)):
            if written is not None and written.resolve().is_relative_to(place.resolve()):
                raise typer.BadParameter(f"{option} {written} lies in {place}, which is read: write beside it instead")


def _is_data_set(places: list[str], split: str | None, layout: str | None) -> bool:
    """Whether the one place is a data set, rather than a picture or a folder of nothing but pictures."""
    from sdg.hub import HUB_ID
    from sdg.jobs.pictures import PICTURES, TABLES
    from sdg.readers.layouts import recognise

    place = Path(places[0])
    if split is not None or layout is not None:
        if len(places) > 1:
            raise typer.BadParameter(f"--split and --layout are for one data set; there are {len(places)}")
        return True
    if len(places) > 1 or place.suffix.lower() in PICTURES:
        return False
    if not place.exists():
        return HUB_ID.fullmatch(places[0]) is not None
    try:
        recognise(place)
    except ValueError:
        if place.suffix.lower() in TABLES:
            raise typer.BadParameter(f"{place} is no picture; a table of captions is given as --captions") from None
        return False
    return True


def settled(model: str) -> str:
    """The model as settings name it: a local folder wherever the command runs."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
