"""What the commands share: where they print, and arguments that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

PICTURE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def writable_picture(path: Path) -> None:
    """Refuse a path that no picture can be written to, before any work is done."""
    if path.suffix.lower() not in PICTURE_FILES:
        raise typer.BadParameter(f"{path} does not end like a picture file ({', '.join(PICTURE_FILES)})")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{path} cannot be written: the folder {path.parent} does not exist")


def load_detector(model: str) -> Any:
    """The detector on a checkpoint; one that cannot be loaded ends the command with a sentence and exit code 2."""
    from transformers.utils import logging

    from sdg.detector import SDGDetector

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return SDGDetector.from_pretrained(model)
    except (OSError, ValueError) as error:
        err.print(Text(f"Error: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(2) from None
