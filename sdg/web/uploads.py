"""Files that visitors and programs send: only uploads are read, never a file of the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from gradio.utils import get_upload_folder


@dataclass(frozen=True)
class Upload:
    """A file that was sent.

    Args:
        path: where it lies; no visitor is told.
        name: what its sender calls it; words, never a place to look at.
    """

    path: Path
    name: str


def upload(sent: Any, what: str) -> Upload:
    """The file behind what the browser or a program handed over.

    Args:
        sent: a dictionary with the file's ``path``, and perhaps its ``orig_name``.
        what: what messages call it, such as "The picture".

    Raises:
        ValueError: where it is no file, or not an uploaded one.
    """
    path = sent.get("path") if isinstance(sent, dict) else None
    if not isinstance(path, str):
        raise ValueError(f"{what} must be sent as a file (with gradio_client: handle_file(path)).")
    # A program may send whatever path it likes.
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()) or not Path(path).is_file():
        raise ValueError(f"{what} must be uploaded; a path on the server is not read.")
    name = sent.get("orig_name")
    return Upload(Path(path), PureWindowsPath(name if isinstance(name, str) and name else path).name[:120])
