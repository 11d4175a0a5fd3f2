"""Folders that are Spaces: the files of ``spaces/``, filled in, and the wheel of this library."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import sdg

Space = Literal["demo", "sdg_eval"]
"""The page, and the metric: an evaluate module whose Space is the page's tab."""

TEMPLATES = Path(__file__).parent / "templates"
DISTRIBUTION = "sdg-t2i"
WHEELS = "sdg_t2i-*.whl"

SAME_BYTES = {"SOURCE_DATE_EPOCH": "315532800"}
"""The date in a wheel, 1980: the same sources then make the same file, and pushing them again uploads nothing."""


def assemble_space(
    kind: Space,
    folder: str | os.PathLike[str],
    wheel: str | os.PathLike[str] | None = None,
    address: str | None = None,
) -> list[Path]:
    """Write a Space that needs nothing but what it carries and the public package index.

    A Space that was assembled into the folder before is replaced.

    Args:
        kind: ``"demo"``, the page, or ``"sdg_eval"``, the metric.
        folder: where to; made where it does not exist.
        wheel: of this library; None builds it, which needs the sources (a checkout of the repository).
        address: where the Space will lie, such as ``"https://huggingface.co/spaces/org/demo"``. ``requirements.txt``
            then names the wheel there, by its hash; None names the file beside it. A Space of the Hub needs the former:
            its builder sees ``requirements.txt`` alone, and goes by its text to tell whether anything has changed.

    Returns:
        the files, relative to ``folder``, sorted.

    Raises:
        ValueError: for an unknown kind, a folder that holds other things, a file that is no wheel of this library, and
            where there are neither sources nor a wheel.
        ImportError: without gradio, whose version the Space's card names.
    """
    if kind not in get_args(Space):
        raise ValueError(f"kind={kind!r} is none of {', '.join(get_args(Space))}")
    gradio = _gradio()
    folder, template = Path(folder), TEMPLATES / kind
    names = sorted(p.relative_to(template) for p in template.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    _check_own(folder, names)
    with tempfile.TemporaryDirectory() as scratch:
        built = build_wheel(scratch) if wheel is None else _check_wheel(Path(wheel))
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(WHEELS):
            if not old.samefile(built):
                old.unlink()
        carried = folder / built.name
        if not (carried.exists() and carried.samefile(built)):
            shutil.copyfile(built, carried)
    for name in names:
        shutil.copyfile(template / name, folder / name)
    requirements, card = folder / "requirements.txt", folder / "README.md"
    found = re.compile(rf"^{DISTRIBUTION}(\[\w+\])$", re.M)
    wanted = found.sub(lambda line: _requirement(carried, line[1], address), requirements.read_text(encoding="utf-8"))
    requirements.write_text(wanted, encoding="utf-8")
    text = re.sub(r"^sdk_version: .+$", f"sdk_version: {gradio}", card.read_text(encoding="utf-8"), count=1, flags=re.M)
    if address is not None:
        text = text.replace("OWNER/NAME", "/".join(address.rstrip("/").split("/")[-2:]))
    card.write_text(text, encoding="utf-8")
    return sorted([*names, Path(carried.name)])


def build_wheel(folder: str | os.PathLike[str]) -> Path:
    """Build this library's wheel from the checkout that it runs from.

    Args:
        folder: where to.

    Raises:
        ValueError: where the library is installed without its sources, or pip could not build it.
    """
    root = Path(sdg.__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        raise ValueError(
            f"{DISTRIBUTION} is installed without its sources (in {root}), so that its wheel cannot be built here: give"
            " the wheel that it was installed from (wheel=, --wheel), or run this from a checkout of the repository"
        )
    with tempfile.TemporaryDirectory() as scratch:
        # A copy: pip leaves build/ in the folder it builds from, and old files in there would get into the next wheel.
        source = Path(scratch) / "source"
        shutil.copytree(root / "sdg", source / "sdg", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(root / name, source / name)
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", scratch, str(source)]
        if find_spec("setuptools"):  # else pip fetches it
            command.insert(4, "--no-build-isolation")
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **SAME_BYTES}, check=False)
        made = sorted(Path(scratch).glob(WHEELS))
        if done.returncode or not made:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise ValueError(
                f"the wheel could not be built: {said[-1].strip()[:300]} (`pip wheel --no-deps {root}` says more)"
            )
        return Path(shutil.copy(made[-1], folder))


def _requirement(wheel: Path, extras: str, address: str | None) -> str:
    if address is None:
        return f"./{wheel.name}{extras}"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{DISTRIBUTION}{extras} @ {address.rstrip('/')}/resolve/main/{wheel.name}#sha256={digest}"


def _gradio() -> str:
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise ImportError(
            'the card of a Space names its version of gradio, which is not installed: pip install "sdg-t2i[app]"'
        ) from None


def _check_wheel(wheel: Path) -> Path:
    if not wheel.is_file() or not wheel.match(WHEELS):
        raise ValueError(f"wheel={str(wheel)!r} is no wheel of {DISTRIBUTION}: a file named {WHEELS} is wanted")
    return wheel


def _check_own(folder: Path, names: list[Path]) -> None:
    """Refuse a folder with anything in it that this module does not write itself."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the Space")
    own = {str(name) for name in names}
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in own and not p.match(WHEELS))
    # A Space is known by its card and its wheel: an app.py alone is anybody's.
    if foreign or (any(folder.iterdir()) and not any(folder.glob(WHEELS))):
        raise ValueError(
            f"{folder} holds {', '.join(foreign[:3]) or 'files'}, which no Space of this library has put there:"
            " name an empty or a new folder"
        )
