"""What the commands share: where they print, and arguments that several of them take."""

from __future__ import annotations

from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

PICTURE_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

PLOTS = (".png", ".svg", ".pdf")


class Order(str, Enum):
    """The order of a box's coordinates."""

    xyxy = "xyxy"
    yxyx = "yxyx"


out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def writable_picture(path: Path) -> None:
    """Refuse a path that no picture can be written to, before any work is done."""
    if path.suffix.lower() not in PICTURE_FILES:
        raise typer.BadParameter(f"{path} does not end like a picture file ({', '.join(PICTURE_FILES)})")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{path} cannot be written: the folder {path.parent} does not exist")


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a path that no file can be written to, before any work is done."""
    if path is None:
        return
    if path.is_dir():
        raise typer.BadParameter(f"{option} {path} is a folder")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{option} {path} cannot be written: the folder {path.parent} does not exist")


def check_plot(path: Path | None) -> None:
    """Refuse a ``--plot`` that cannot be drawn, before any work is done."""
    if path is None:
        return
    check_writable("--plot", path)
    if path.suffix.lower() not in PLOTS:
        raise typer.BadParameter(f"--plot {path} does not end in one of {', '.join(PLOTS)}")
    if find_spec("matplotlib") is None:
        refuse('--plot needs matplotlib: pip install "sdg-t2i[plot]"')


def refuse(message: str) -> NoReturn:
    """End the command with a sentence and exit code 2."""
    err.print(Text(f"Error: {message}", style="red"), soft_wrap=True)
    raise typer.Exit(2)


def load_detector(model: str, endpoint: str | None = None, prompt: str | None = None, **options: Any) -> Any:
    """The detector on a checkpoint or behind a server, as :func:`sdg.detector.load_detector` takes them; one that
    cannot be loaded ends the command with a sentence and exit code 2."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from sdg import detector

    hub_logging.set_verbosity_error()  # each try of each file would be a line
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return detector.load_detector(model, endpoint, prompt, **options)
    except (OSError, ValueError, ImportError) as error:
        refuse(str(error))
