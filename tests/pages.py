"""Documentation pages as tests see them: their text, their code, and a shell in which the code finds `sdg`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import sdg

ROOT = Path(sdg.__file__).parents[1]


def read(name: str) -> tuple[str, list[tuple[str, str]]]:
    """A page of docs/, and its blocks of code as (language, code)."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return text, re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def shell(folder: Path) -> dict[str, str]:
    """The environment for a page's commands in ``folder``: `sdg` is this interpreter's, and nothing is fetched."""
    (folder / "bin").mkdir()
    (folder / "bin" / "sdg").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sdg "$@"\n')
    (folder / "bin" / "sdg").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}
