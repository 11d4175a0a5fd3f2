"""The checkpoints that the package brings along, and the check that their files are those that were packed.

``checkpoints/SHA256SUMS`` lists the files that they are loaded from; cards and pictures are not among them. Whoever
changes such a file writes the list anew with ``python -m sdg.embedded``; ``sha256sum -c`` reads it, too.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from sdg.hub import HubError

ROOT = Path(__file__).resolve().parent / "checkpoints"

NAMES = ("sdg-tiny", "sdg-tiny-scorer", "sdg-tiny-t2i")
"""Detector, scalar scorer, generator."""

MANIFEST = "SHA256SUMS"

NOT_LOADED = (".md", ".jpg", ".png", ".yaml")
"""Cards, pictures and results of evaluations: they may change without the checkpoint becoming another one."""


def find(name: str | os.PathLike[str]) -> Path | None:
    """The folder of an embedded checkpoint, its files checked once a process; None for any other name.

    Raises:
        HubError: where this installation lacks it, or a file is not the one that was packed.
    """
    name = os.fspath(name)
    return _checked(name, ROOT) if name in NAMES else None


@functools.cache
def _checked(name: str, root: Path) -> Path:
    folder = root / name
    if not folder.is_dir():
        raise HubError(
            f"the embedded checkpoint {name!r} is not part of this installation (no folder {folder}): install the"
            " package again, or name a local folder or a Hub id"
        )
    listed = {path: digest for path, digest in read_manifest(root).items() if path.startswith(f"{name}/")}
    if not listed:
        raise HubError(f"{root / MANIFEST} lists no file of {name!r}: install the package again")
    for path, digest in listed.items():
        wrong = None if (root / path).is_file() else "is missing"
        if wrong is None and _digest(root / path) != digest:
            wrong = "is damaged: it is not the file that was packed"
        if wrong:
            raise HubError(
                f"{root / path} of the embedded checkpoint {name!r} {wrong}. Install the package again (pip install"
                " --force-reinstall --no-deps sdg-t2i); whoever changed it on purpose runs python -m sdg.embedded"
            )
    return folder


def read_manifest(root: Path | None = None) -> dict[str, str]:
    """The listed files, by their path below ``root``, with their hashes.

    Raises:
        HubError: where there is no list, or it cannot be read.
    """
    root = root or ROOT
    try:
        lines = (root / MANIFEST).read_text(encoding="ascii").splitlines()
        return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise HubError(f"{root / MANIFEST} cannot be read ({error}): install the package again") from error


def manifest(root: Path | None = None) -> dict[str, str]:
    """What the list should be: hashes of the files that the checkpoints are loaded from, by path."""
    root = root or ROOT
    files = sorted(path for name in NAMES for path in (root / name).rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): _digest(path)
        for path in files
        if path.suffix not in NOT_LOADED and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def write_manifest(root: Path | None = None) -> Path:
    """Write the list of the files as they are now."""
    root = root or ROOT
    lines = [f"{digest}  {path}\n" for path, digest in manifest(root).items()]
    (root / MANIFEST).write_text("".join(lines), encoding="ascii", newline="\n")
    return root / MANIFEST


def renew(folder: str | os.PathLike[str]) -> None:
    """Write the list anew where a folder, changed on purpose, is one of an embedded checkpoint."""
    if Path(folder).resolve() in [ROOT / name for name in NAMES]:
        write_manifest()
        _checked.cache_clear()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(write_manifest())
