"""``sdg install-metric``: let ``evaluate.load("sdg_eval")`` find the metric without the Hub."""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sdg.cli.shared import err

NAME = "sdg_eval"
MARK = ".installed-by-sdg"


def cache() -> Path:
    """The folder in which evaluate looks for the metric once the Hub could not give it.

    Computed as evaluate does it, without importing it: that takes seconds.
    """
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    modules = os.environ.get("HF_MODULES_CACHE") or os.path.join(os.path.expanduser(home), "modules")
    return Path(modules) / "evaluate_modules" / "metrics" / f"evaluate-metric--{NAME}"


def install() -> Path:
    """Write the metric's script where evaluate looks for it; what is there already is only touched.

    Returns:
        the script.

    Raises:
        OSError: where it cannot be written.
    """
    script = files("sdg.evaluation").joinpath("evaluate_module.py").read_bytes()
    folder = cache() / hashlib.sha256(script).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    # evaluate imports the folders as packages.
    for path in (folder, folder.parent, folder.parents[1], folder.parents[2]):
        (path / "__init__.py").touch()
    (folder / MARK).touch()
    target = folder / f"{NAME}.py"
    # Written beside and renamed: another process that loads the metric meanwhile sees a whole file.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part", delete=False) as part:
        part.write(script)
    os.chmod(part.name, 0o644)
    os.replace(part.name, target)
    return target


def uninstall() -> list[Path]:
    """Remove the scripts that :func:`install` wrote; what evaluate or others put there stays.

    Returns:
        the scripts that were removed.
    """
    removed = []
    for mark in sorted(cache().glob(f"*/{MARK}")):
        folder = mark.parent
        for name in (f"{NAME}.py", "__init__.py", f"{NAME}.json", MARK):
            (folder / name).unlink(missing_ok=True)
        compiled = folder / "__pycache__"
        for path in compiled.glob("*.pyc"):
            path.unlink()
        for empty in (compiled, folder):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        removed.append(folder / f"{NAME}.py")
    if (cache() / "__init__.py").exists() and not any(
        p.is_dir() and p.name != "__pycache__" for p in cache().iterdir()
    ):
        (cache() / "__init__.py").unlink()
        for path in (cache() / "__pycache__", cache()):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    return removed


def install_metric(
    remove: Annotated[bool, typer.Option("--uninstall", help="Remove what this command wrote.")] = False,
) -> None:
    """Let `evaluate.load("sdg_eval")` work on this machine, offline and from any folder.

    Writes one small script into evaluate's cache of modules ($HF_MODULES_CACHE); doing it twice changes nothing.
    Programs then load the metric by that name without importing sdg. A metric of that name on the Hub wins where it is
    reached.

    Exit code: 0, or 1 where the cache cannot be written.

    \b
    Examples:
      sdg install-metric
      sdg install-metric --uninstall
    """
    try:
        if remove:
            removed = uninstall()
            said = "\n".join(f"{path} removed" for path in removed) or f"{cache()} holds nothing of sdg's"
            err.print(Text(said), soft_wrap=True)
        else:
            err.print(Text(f'{install()} written: evaluate.load("{NAME}") finds it'), soft_wrap=True)
    except OSError as error:
        reason = f"Error: {error.filename or cache()} cannot be written ({error.strerror or error}); "
        err.print(Text(reason + "set HF_HOME to a folder that can", style="red"), soft_wrap=True)
        raise typer.Exit(1) from None
