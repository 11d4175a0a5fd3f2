"""What `sdg push` uploads: which folder is which kind, and what must be in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sdg
from sdg import embedded
from sdg.cards import RECIPE_FILE, About, Subject, write_card
from sdg.hub import HubError, address
from sdg.publish.space import Space, assemble_space
from sdg.upload import File, Kind, Published, RefusedError, check_folder, upload

What = Literal["detector", "lora", "generator", "dataset", "metric", "space"]

NEEDED: dict[str, tuple[tuple[str, ...], str]] = {
    "detector": (
        ("sdg_config.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json"),
        "a processor beside config.json (or adapter_config.json)",
    ),
    "lora": (("adapter_config.json", "pytorch_lora_weights.safetensors"), "adapter_config.json"),
    "generator": (("model_index.json",), "model_index.json"),
    "dataset": (
        ("**/*.parquet", "**/*.jsonl", "**/*.json", "**/*.csv", "**/*.arrow", "**/*.tar"),
        "parquet or JSON lines",
    ),
}
"""Which files tell what a folder holds, as patterns of which one has to match, and how to say so."""

ASSEMBLED: dict[str, Space] = {"metric": "sdg_eval", "space": "demo"}


@dataclass(frozen=True)
class Push:
    """An upload that has passed every check and was not sent yet.

    Args:
        what: as the command names it.
        repo_id: ``"owner/name"``.
        kind: what the checks took it for.
        files: to upload.
        card: text of ``README.md``.
    """

    what: What
    repo_id: str
    kind: Kind
    files: tuple[File, ...]
    card: str

    @property
    def address(self) -> str:
        """Of the repository, whether it is there yet or not."""
        return address(self.repo_id, self.kind)

    def send(
        self,
        *,
        private: bool | None = None,
        message: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> Published:
        """Upload it in one commit: see :func:`sdg.upload.upload`."""
        message = message or f"Upload {self.what} with sdg {sdg.__version__}"
        return upload(
            self.files, self.repo_id, self.kind, message=message, private=private, revision=revision, token=token
        )


@contextmanager
def prepare(
    what: What,
    repo_id: str,
    folder: str | os.PathLike[str] | None = None,
    wheel: str | os.PathLike[str] | None = None,
    about: About | None = None,
) -> Iterator[Push]:
    """Check a folder, or assemble a Space, for an upload.

    Args:
        what: ``"metric"`` and ``"space"`` are assembled from this package; the others are folders.
        repo_id: ``"owner/name"``.
        folder: what to upload, or the name of an embedded checkpoint, such as ``"sdg-tiny"``.
        wheel: of this library, for a Space; None builds it from the sources.
        about: what goes into the card of a folder that has none; and the data sets that it was made and measured on.

    Yields:
        the upload; what was assembled for it is gone afterwards.

    Raises:
        RefusedError: naming all that is wrong with the folder.
        ValueError: for a name that is no ``"owner/name"``, a folder too many or too few, and a Space that cannot be
            assembled.
    """
    check_name(repo_id)
    if what in ASSEMBLED:
        if about is not None and about != About():
            raise ValueError(f"{what} has its own card, which tells its license and all else")
        if folder is not None:
            raise ValueError(f"{what} is assembled from this package: name no folder ({os.fspath(folder)!r})")
        with tempfile.TemporaryDirectory() as scratch:
            assemble_space(ASSEMBLED[what], scratch, wheel, address(repo_id, "space"))
            yield _checked(what, repo_id, Path(scratch), "space")
        return
    if folder is None:
        raise ValueError(f"which {what}? Name its folder")
    path = Path(folder)
    if not path.is_dir():
        try:
            own = embedded.find(folder)
        except HubError as error:
            raise RefusedError(str(error)) from error
        if own is None:
            names = ", ".join(embedded.NAMES)
            raise RefusedError(f"there is no folder {os.fspath(folder)!r}, nor is it an embedded checkpoint ({names})")
        path = own
    patterns, wanted = NEEDED[what]
    if not any(any(path.glob(pattern)) for pattern in patterns):
        raise RefusedError(f"{path} holds no {what}: {wanted} is missing")
    adapter = what == "lora" or (what == "detector" and (path / "adapter_config.json").is_file())
    kind: Kind = "dataset" if what == "dataset" else "adapter" if adapter else "model"
    with tempfile.TemporaryDirectory() as beside:
        _write_card(path, what, repo_id, about or About(), Path(beside))
        yield _checked(what, repo_id, path, kind, Path(beside))


def _write_card(folder: Path, what: What, repo_id: str, about: About, beside: Path) -> None:
    """Write what belongs beside the folder's files: the card that it lacks, and measured results."""
    counts: dict[str, Any] | None = None
    if what == "dataset":
        if About(about.license, about.license_link) != about:
            raise ValueError(
                "a data set has a license, but no base model, no results and no data set that it was made on"
            )
        if about.license is not None and not (folder / "README.md").is_file():
            counts = _counts(folder)
    if what == "generator" and not (folder / "README.md").is_file() and not (folder / RECIPE_FILE).is_file():
        raise RefusedError(f"{folder} has no card (README.md), and of a pipeline nothing is known: write one")
    subject: Subject = what  # type: ignore[assignment]
    write_card(folder, beside, subject, repo_id, about, counts)


def _counts(folder: Path) -> dict[str, Any]:
    from sdg.readers import read
    from sdg.statistics import collect

    try:
        counts = collect(read(folder, images=False)).to_json()
    except (ValueError, OSError) as error:
        raise RefusedError(
            f"{folder} has no card (README.md), and none can be made of what it holds: {error}. Write it yourself"
        ) from None
    if not counts["images"]:
        raise RefusedError(f"{folder} holds no record: there is nothing to publish")
    return counts


def _checked(what: What, repo_id: str, folder: Path, kind: Kind, beside: Path | None = None) -> Push:
    files = check_folder(folder, kind, beside=beside)
    card = next(file.source for file in files if file.path == "README.md")
    return Push(what, repo_id, kind, tuple(files), card.read_text(encoding="utf-8"))


def check_name(repo_id: str) -> None:
    """Refuse what is no ``"owner/name"``.

    Raises:
        ValueError: naming it.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"repo={repo_id!r}: {str(error).splitlines()[0]}") from None
    if repo_id.count("/") != 1:
        raise ValueError(f"repo={repo_id!r} names no owner: write owner/name")
