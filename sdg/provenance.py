"""Where a result comes from: the command that was typed, and the code that it ran."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdg import __version__

ROOT = Path(__file__).resolve().parents[1]
CODE = ("sdg", "train", "benchmarks/*.py")
"""What results depend on, as git's paths: text and results of other runs may change beside them."""

_NOT_SAID = ("--out", "--name", "--sheet", "--plot")
"""Options that say where results go, and change none of them."""


def made_by(command: str | None = None) -> dict[str, str]:
    """What a file of results says of its origin.

    Args:
        command: as somebody would type it again; None is how this program was called, without the options that say
            where results go. Of absolute paths it keeps the names: what lies above them is nobody's business.

    Returns:
        ``command``; ``version`` of the library; and, where it runs from a checkout, its ``commit``, which ends in
        ``-dirty`` where the code had changes that no commit has.
    """
    told = {"command": command or typed(sys.argv), "version": __version__}
    found = commit()
    return told if found is None else {**told, "commit": found}


def write_result(path: str | os.PathLike[str], figures: Mapping[str, Any]) -> None:
    """Write a file of results as JSON, what made them first; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**made_by(), **figures}, indent=1) + "\n", encoding="utf-8")


def typed(argv: Sequence[str]) -> str:
    """A command line as somebody would type it in a checkout."""
    script = Path(argv[0]).absolute()
    name = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    words = ["sdg"] if script.name in ("sdg", "__main__.py") else ["python", name] if name.endswith(".py") else [name]
    left = iter(argv[1:])
    for word in left:
        if word in _NOT_SAID:
            next(left, None)
        elif not word.startswith(tuple(f"{option}=" for option in _NOT_SAID)):
            option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
            words.append(option + equals + (Path(value).name if os.path.isabs(value) else value))
    return shlex.join(words)


def commit(root: Path = ROOT) -> str | None:
    """The commit of the checkout that the library is in; None where it is in none, or git is missing."""
    if not (root / ".git").exists():
        return None
    try:
        said = [
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=7", "HEAD"), ("status", "--porcelain", "--", *CODE))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return said[0] + ("-dirty" if said[1] else "")
