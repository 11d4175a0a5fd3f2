"""A virtual environment with what some requirements ask for, and nothing else: linked from this one, not downloaded."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def required(requirements: Iterable[str]) -> list[metadata.Distribution]:
    """The distributions that installing these would install, by what each says that it needs.

    Raises:
        metadata.PackageNotFoundError: where one of them is not installed here.
    """
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in seen:
                continue
            seen.add((wanted.name, extra))
            dist = found.setdefault(wanted.name, metadata.distribution(wanted.name))
            for text in dist.requires or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return list(found.values())


def make(folder: Path, distributions: Iterable[metadata.Distribution]) -> Path:
    """The environment's interpreter."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for dist in distributions:
        for top in {path.parts[0] for path in dist.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            link, target = packages / top, Path(str(dist.locate_file(top)))
            if not link.exists() and target.exists():
                link.symlink_to(target)
    return python


def install(
    python: Path, requirements: str, constraints: Path, folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Install a file of requirements as a Space does, from within its folder, without asking any index."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-compile", "--quiet"]
    command += ["-r", requirements, "-c", str(constraints), *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
