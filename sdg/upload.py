"""The gate to the Hub: what may leave this machine, and one commit that carries all of it or nothing."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sdg.hub import PICKLES

Kind = Literal["model", "adapter", "dataset", "space"]
"""What a folder holds; an adapter lies in a repository of models, and is nothing without its base model."""

FROM_NOTHING = "trained-from-scratch"
"""The tag by which a card says that a model has no base model."""

MAX_BYTES = 50 * 10**9
"""Of one file: the Hub takes none that is larger."""

LEFT_OUT = ("__pycache__", ".git", ".cache", ".ipynb_checkpoints", ".DS_Store")
"""Files and folders that tools leave behind: not part of anything, and not uploaded."""

OTHER_WEIGHTS = (".h5", ".keras", ".msgpack", ".onnx", ".gguf", ".tflite", ".npy", ".npz")
SECRET_FILES = (".env", ".env.*", ".*rc", ".git-credentials", "id_rsa", "id_ed25519", "*.pem", "*.p12")

SECRETS = (
    ("a token of the Hub", rb"hf_", rb"[A-Za-z0-9]{30,}"),
    ("a key of an API", rb"sk-", rb"(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{20,}"),
    ("a token of GitHub", rb"gh", rb"[oprsu]_[A-Za-z0-9]{36}"),
    ("a token of GitHub", rb"github_pat_", rb"[A-Za-z0-9_]{40,}"),
    ("a key of AWS", rb"AKIA", rb"[0-9A-Z]{16}"),
    ("a key of Google", rb"AIza", rb"[A-Za-z0-9_-]{35}"),
    ("a private key", rb"-----BEGIN ", rb"(?:[A-Z]+ )*PRIVATE KEY-----"),
)
# What stands before is looked at after the first letters, by which gigabytes of weights are searched quickly.
_SECRETS = [(name, re.compile(first + rb"(?<![A-Za-z0-9]" + first + rb")" + rest)) for name, first, rest in SECRETS]

REPLACED = ("*.safetensors", "*.safetensors.index.json", "*.parquet", "*.whl", "calibration.json")
"""What an upload takes away where it brings none of that name: beside the new files it would be loaded with them."""


class RefusedError(ValueError):
    """A folder that must not be uploaded; the message names every file and what to do. Nothing was sent."""


class UploadError(OSError):
    """An upload that did not come to its end; no part of it can be seen on the Hub."""


@dataclass(frozen=True)
class File:
    """One file to upload.

    Args:
        path: in the repository, with forward slashes.
        source: on this machine.
        size: in bytes.
    """

    path: str
    source: Path
    size: int


@dataclass(frozen=True)
class Published:
    """What was uploaded.

    Args:
        address: of the repository.
        commit: address of the commit.
        removed: files of an earlier upload that this one took away.
    """

    address: str
    commit: str
    removed: tuple[str, ...] = ()


def check_folder(
    folder: str | os.PathLike[str],
    kind: Kind,
    max_bytes: int = MAX_BYTES,
    beside: str | os.PathLike[str] | None = None,
) -> list[File]:
    """The files of a folder that may be uploaded, all of them checked.

    Weights are safetensors that can be opened; no file is a pickle, holds a secret or is larger than ``max_bytes``; the
    card (``README.md``) names a license, and for models the base model or, for one trained from nothing, the tag
    ``trained-from-scratch``. An adapter has to name its base model.

    Args:
        folder: what to upload. What tools leave behind (:data:`LEFT_OUT`) is left out.
        kind: what it holds.
        max_bytes: of one file.
        beside: folder of further files, checked like the others; they go before those of the same path.

    Returns:
        the files, by path.

    Raises:
        RefusedError: naming all that is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RefusedError(f"there is no folder {str(folder)!r} to upload")
    files: list[File] = []
    wrong: list[str] = []
    places = [Path(place) for place in (beside, folder) if place is not None]
    for root, (here, folders, names) in ((place, found) for place in places for found in os.walk(place)):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in folders:
            if Path(here, name).is_symlink():  # which os.walk passes by, so that its files would be missing
                wrong.append(f"{_path(root, here, name)} is a link to another folder: copy its files here")
        for name in sorted(set(names) - set(LEFT_OUT)):
            source, path = Path(here, name), _path(root, here, name)
            if any(file.path == path for file in files):
                continue
            if not source.is_file():
                wrong.append(f"{path} is not a file that can be read: remove it")
                continue
            files.append(File(path, source, source.stat().st_size))
            wrong += [f"{path} {reason}" for reason in _wrong_file(files[-1], max_bytes)]
    if not files:
        wrong.append("it holds no file")
    card = next((file.source for file in files if file.path == "README.md"), folder / "README.md")
    wrong += _wrong_card(card, kind)
    if wrong:
        shown = "".join(f"\n- {line}" for line in wrong[:12])
        more = f"\n- … and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        raise RefusedError(f"{folder} is not uploaded:{shown}{more}")
    return sorted(files, key=lambda file: file.path)


def upload(
    files: Sequence[File],
    repo_id: str,
    kind: Kind,
    *,
    message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
) -> Published:
    """Upload checked files in one commit, to a repository that is made where it does not exist.

    Large files go first, and what has arrived is not sent again by a second try; the commit, which makes them all
    visible at once, comes last. Files that an earlier upload put into the same folders and that would be loaded beside
    the new ones (:data:`REPLACED`) are taken away by the same commit.

    Args:
        files: of :func:`check_folder`.
        repo_id: ``"owner/name"``.
        kind: what they are; a Space is one of gradio.
        message: of the commit.
        private: of a new repository; None is the account's default. True is refused where a public one is there.
        token: access token; None takes the one of ``hf auth login`` or ``HF_TOKEN``.
        revision: branch, made where it does not exist; None is ``main``.

    Raises:
        RefusedError: for ``private=True`` and a repository that everyone can read.
        UploadError: saying what the Hub, or the network, said and what to do.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    repo_type = "model" if kind == "adapter" else kind
    api = HfApi(token=token)
    try:
        sdk = "gradio" if kind == "space" else None
        address = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk)
        repo_id = address.repo_id
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise RefusedError(f"{address} is there and everyone can read it: make it private first, or name another")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        there: Any = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        removed = _left_behind([s.rfilename for s in there.siblings or []], [file.path for file in files])
        # Not upload_folder: it makes several commits of one folder, and the first ones are no whole checkpoint.
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(file.path, str(file.source)) for file in files),
                *(CommitOperationDelete(path, is_folder=False) for path in removed),
            ],
            commit_message=message,
            repo_type=repo_type,
            revision=revision,
            parent_commit=there.sha,
        )
    except RefusedError:
        raise
    except Exception as error:
        raise UploadError(f"{repo_id} was not published: {_said(error, repo_id, api.endpoint)}") from error
    return Published(str(address), commit.commit_url, tuple(removed))


def check_login(repo_id: str) -> None:
    """See that there is a token and that the Hub knows it, before long work whose result is to be uploaded.

    Args:
        repo_id: ``"owner/name"``, for the message.

    Raises:
        UploadError: saying what the Hub, or the network, said and what to do.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.whoami()
    except Exception as error:
        raise UploadError(f"{repo_id} could not be published: {_said(error, repo_id, api.endpoint)}") from error


def _path(folder: Path, here: str, name: str) -> str:
    return Path(here, name).relative_to(folder).as_posix()


def _wrong_file(file: File, max_bytes: int) -> Iterator[str]:
    name = PurePosixPath(file.path).name.lower()
    suffix = PurePosixPath(name).suffix
    if suffix in PICKLES:
        yield "is a pickle, which runs code when it is loaded: save weights as safetensors, or remove it"
    elif suffix in OTHER_WEIGHTS:
        yield "may hold weights in a format other than safetensors: convert it, or remove it"
    if any(fnmatch(name, pattern) for pattern in SECRET_FILES):
        yield "is a file that secrets are kept in: remove it"
    if file.size > max_bytes:
        yield f"has {file.size / 1e9:.3g} GB, more than {max_bytes / 1e9:.3g}: split it (save_pretrained writes shards)"
        return
    if suffix == ".safetensors":
        yield from _wrong_weights(file.source)
    if file.size:
        with open(file.source, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for secret, pattern in _SECRETS:
                if found := pattern.search(content):
                    line = content[: found.start()].count(b"\n") + 1
                    yield f"holds what looks like {secret} in line {line}: take it out, and have it revoked"


def _wrong_weights(path: Path) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        yield f"cannot be opened as safetensors ({error}): save it again"


def _wrong_card(path: Path, kind: Kind) -> Iterator[str]:
    """What the card lacks; each reason begins with the file's name."""
    from huggingface_hub import DatasetCard, ModelCard, SpaceCard

    if not path.is_file():
        told = "" if kind == "space" else ", or name the license (--license), and one is made of what is known"
        yield f"README.md, the card, is missing: write one whose head names the license{told}"
        return
    card_class: Any = {"dataset": DatasetCard, "space": SpaceCard}.get(kind, ModelCard)
    try:
        data = card_class(path.read_text(encoding="utf-8")).data
    except Exception as error:  # of YAML, or of the class that reads it
        yield f"README.md has a head that cannot be read: {str(error).splitlines()[0]}"
        return
    if not data.get("license"):
        yield "README.md names no license: write `license: apache-2.0`, or the one that it has, into its head"
    made = " (for a card that is made: --base-model)"
    if kind in ("model", "adapter") and not data.get("base_model"):
        if kind == "adapter":
            yield f"README.md names no base_model: write the model that the adapter belongs to into its head{made}"
        elif FROM_NOTHING not in (data.get("tags") or []):
            yield (
                "README.md names no base_model: write what the model was trained from into its head, or the tag"
                f" `{FROM_NOTHING}` where that was nothing{made}"
            )


def _left_behind(there: Sequence[str], coming: Sequence[str]) -> list[str]:
    """Files of :data:`REPLACED` in the folders that are uploaded to, which the upload does not bring."""
    folders = {PurePosixPath(path).parent for path in coming}
    return [
        path
        for path in there
        if path not in coming
        and PurePosixPath(path).parent in folders
        and any(fnmatch(PurePosixPath(path).name, pattern) for pattern in REPLACED)
    ]


def _said(error: Exception, repo_id: str, endpoint: str) -> str:
    """What went wrong, in a sentence with the way out."""
    from huggingface_hub import constants, errors

    again = "Run it again: what has arrived is not sent a second time, and no part of it can be seen until all is there"
    if isinstance(error, errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set: unset it"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "there is no token: log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.HFValidationError):
        return str(error).splitlines()[0]
    if type(error) is ValueError:  # the Hub's word on a card's head
        return " ".join(str(error).split())
    cause: BaseException | None = error  # a file that fails is wrapped in an error that names it
    while cause is not None and not isinstance(cause, errors.HfHubHTTPError):
        cause = cause.__cause__
    if cause is None:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no answer")
        return f"{endpoint} could not be reached to the end ({type(error).__name__}: {first[:200]}). {again}"
    status = cause.response.status_code
    told = (cause.server_message or "").splitlines()
    owner = repo_id.split("/")[0]
    reasons = {
        401: "the token is missing or not valid: log in with `hf auth login`, or set HF_TOKEN",
        403: f"the token may not write for {owner}: make one that may at {endpoint}/settings/tokens",
        404: f"the repository or branch is gone, or the token may not see what {owner} has",
        409: "someone else has pushed at the same time: run it again",
        412: "someone else has pushed at the same time: run it again",
        429: "too many requests: wait some minutes. " + again,
    }
    reason = reasons.get(status, again if status >= 500 else "")
    detail = f" ({told[0][:200]})" if told and told[0] else ""
    return f"{endpoint} answered {status}{detail}" + (f": {reason}" if reason else "")
