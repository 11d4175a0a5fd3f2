"""``sdg microworld``: look at the synthetic world."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sdg.cli.shared import err, writable_picture


class Split(str, Enum):
    """The splits of the microworld."""

    train = "train"
    validation = "validation"
    test = "test"


def microworld(
    sheet: Annotated[Path, typer.Option(metavar="OUT", help="Picture file to write.", show_default=False)],
    n: Annotated[int, typer.Option(min=1, max=2000, help="How many pictures.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pictures.")] = 0,
    split: Annotated[Split, typer.Option(help="Splits share no scene and no caption pattern.")] = Split.train,
) -> None:
    """Draw a sheet of the microworld: pictures with their true defects, captions and reasons.

    \b
    Example:
      sdg microworld --sheet world.png --n 40 --split test
    """
    writable_picture(sheet)
    from sdg.draw import contact_sheet
    from sdg.microworld import generate

    contact_sheet(generate(n, seed, split.value)).save(sheet)
    err.print(Text(f"{sheet} written: {n} pictures of the {split.value} split"))
