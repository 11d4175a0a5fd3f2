"""Documentation pages as tests see them: their text, their code, and places in which the code finds `sdg`."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sdg

ROOT = Path(sdg.__file__).parents[1]
PAGES = {
    path.relative_to(ROOT if path.parent == ROOT else ROOT / "docs").as_posix(): path
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
    if "_build" not in path.parts
}
"""By their name as :func:`read` takes it: README.md, CONTRIBUTING.md, and every page of docs/."""
SHELL = ["bash", "-euo", "pipefail", "-c"]


def read(name: str) -> tuple[str, list[tuple[str, str]]]:
    """A page, and its blocks of code as (language, code)."""
    text = PAGES[name].read_text(encoding="utf-8")
    return text, re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def shell(folder: Path) -> dict[str, str]:
    """The environment for a page's commands in ``folder``: `sdg` is this interpreter's, and nothing is fetched."""
    (folder / "bin").mkdir()
    (folder / "bin" / "sdg").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sdg "$@"\n')
    (folder / "bin" / "sdg").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "HF_HUB_OFFLINE": "1"}


def run(blocks: Iterable[tuple[str, str]], folder: Path) -> list[str]:
    """Run the python and bash of a page from top to bottom in ``folder``, python in one namespace, as in a notebook.

    Returns:
        What each of these blocks printed. Blocks in other languages (``sh``: not meant to run here) are left out.
    """
    environment = shell(folder)
    names: dict[str, Any] = {}
    told = []
    before = Path.cwd()
    os.chdir(folder)
    try:
        for language, code in blocks:
            if language == "python":
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(code, names)
                told.append(out.getvalue())
            elif language == "bash":
                done = subprocess.run([*SHELL, code], env=environment, capture_output=True, text=True)
                assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
                told.append(done.stdout + done.stderr)
    finally:
        os.chdir(before)
    return told
