"""From the id of a repository to a folder on this machine; where that fails, a sentence that says what to do."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["model", "dataset"]
"""The sorts of repositories that something is loaded from."""

NAMES = {"model": "model", "dataset": "data set", "space": "Space"}

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
"""How the id of a repository looks."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
"""Endings of files that run code when they are loaded: none is downloaded, opened or uploaded."""


class HubError(OSError):
    """A repository, or a folder, from which something could not be loaded; the message says what to do."""


@dataclass(frozen=True)
class HubOptions:
    """How files are found: the arguments that every ``from_pretrained`` of Hugging Face takes.

    Args:
        revision: branch, tag or commit; None is ``main``.
        token: access token; None takes the one of ``hf auth login`` or ``HF_TOKEN``, False none.
        cache_dir: where downloads are kept; None is the cache of Hugging Face.
        local_files_only: never ask the network. ``HF_HUB_OFFLINE`` in the environment does the same for all.
        force_download: download again what is in the cache.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    force_download: bool = False

    def kwargs(self) -> dict[str, Any]:
        """As keyword arguments; what is not given is left to the library's default."""
        return {k: v for k, v in asdict(self).items() if v is not None}


def download(
    repo_id: str,
    hub: HubOptions,
    kind: Kind = "model",
    patterns: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    quiet: bool = False,
) -> Path:
    """The folder of a repository's files at one commit, those downloaded that are not in the cache.

    Args:
        repo_id: ``"owner/name"``.
        hub: how files are found.
        kind: of the repository.
        patterns: of the files that are wanted, as in shells, where ``*`` matches ``/``, too; None is all.
        ignore: patterns of files that are not wanted all the same.
        quiet: show no progress, as for some small files.

    Raises:
        HubError: saying what is the matter and what to do.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    try:
        folder = snapshot_download(
            repo_id,
            tqdm_class=Silent if quiet else None,
            repo_type=kind,
            allow_patterns=None if patterns is None else list(patterns),
            ignore_patterns=None if ignore is None else list(ignore),
            **hub.kwargs(),
        )
    except Exception as error:  # of the Hub, of the network, of the disk
        raise HubError(explain(error, repo_id, hub, kind)) from error
    return Path(folder)


def explain(error: BaseException, repo_id: str, hub: HubOptions, kind: Kind = "model") -> str:
    """Why a repository could not be loaded, in a sentence with the way out.

    Args:
        error: of ``huggingface_hub``, or of a library that calls it.
        repo_id: as the user wrote it.
        hub: how it was looked for.
        kind: what was expected.
    """
    from huggingface_hub import constants, errors

    causes = list(_causes(error))
    found = next((e for e in causes if isinstance(e, errors.HfHubHTTPError)), None)
    endpoint, cache = constants.ENDPOINT, os.fspath(hub.cache_dir or constants.HF_HUB_CACHE)
    login = "log in with `hf auth login`, set HF_TOKEN or pass token="
    here = error if isinstance(error, OSError) else error.__cause__
    if isinstance(here, OSError) and here.errno in FULL:
        return (
            f"{repo_id!r} does not fit on the disk of {cache}: free some space, or keep downloads on another one with"
            " cache_dir= or HF_HOME"
        )
    if isinstance(here, OSError) and here.errno in NOT_WRITABLE:
        return (
            f"{repo_id!r} could not be kept, {cache} may not be written to ({brief(here)}): name another folder with"
            " cache_dir= or HF_HOME"
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repo_id!r} is no name of a repository: write owner/name"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"token=True asks for the token of `hf auth login`, and nobody is logged in here: {login}"
    if hub.local_files_only or constants.is_offline_mode():
        switch = "local_files_only=True" if hub.local_files_only else "HF_HUB_OFFLINE is set"
        undo = "Load it once without local_files_only" if hub.local_files_only else "Unset it"
        if isinstance(error, ValueError) and hub.force_download:
            return f"force_download=True contradicts {switch}: leave one of them out"
        part = "only in part " if isinstance(error, errors.IncompleteSnapshotError) else ""
        there = f"is {part}in the cache" if part else "is not in the cache"
        at = f" at revision {hub.revision!r}" if hub.revision else ""
        return (
            f"{repo_id!r} {there}{at} ({cache}), and the Hub was not asked: {switch}. {undo}, or copy the folder here"
            " and give its path"
        )
    if isinstance(found, errors.GatedRepoError):
        refused = found.response.status_code == 403
        why = "the token that was used has no access to it yet" if refused else "nobody is logged in"
        return f"{repo_id!r} is gated ({why}): accept its terms at {address(repo_id, kind)}, then {login}"
    if isinstance(found, errors.RevisionNotFoundError):
        there = ", ".join(_revisions(repo_id, hub, kind))
        return f"{repo_id!r} has no revision {hub.revision!r}" + (
            f": it has {there}" if there else ": look at its page"
        )
    if isinstance(found, errors.RepositoryNotFoundError):
        other = _other_kind(repo_id, hub, kind)
        if other:
            wanted, page = NAMES[kind], address(repo_id, other)
            return f"{repo_id!r} is a {NAMES[other]} ({page}), and a {wanted} is needed here: name a {wanted}"
        return f"there is no {NAMES[kind]} {repo_id!r} at {endpoint}, or it is private: check the name, or {login}"
    if found is not None:
        status = found.response.status_code
        told = (found.server_message or "").strip().split("\n")[0][:200]
        reasons = {
            401: f"the token is not valid; {login}",
            403: f"the token that was used may not read it; {login}",
            429: f"too many requests; wait some minutes and run it again, or {login} to be allowed more",
        }
        reason = reasons.get(status) or ("run it again later" if status >= 500 else told or "without a reason")
        return f"{repo_id!r} could not be fetched, {endpoint} answered {status}: {reason}"
    wire = next((e for e in causes if isinstance(e, errors.HTTPError)), None)
    offline = next((e for e in (wire, *causes) if e is not None and _no_connection(e)), None)
    if offline is not None:
        return (
            f"{repo_id!r} is not in the cache, and there is no connection to {endpoint} ({brief(offline)}): check the"
            " network, or copy the folder here and give its path"
        )
    if wire is not None or "Consistency check failed" in str(error):
        return (
            f"the connection to {endpoint} broke while {repo_id!r} was downloaded ({brief(wire or error)}): run it"
            " again; files that have arrived whole are not fetched twice"
        )
    return f"{repo_id!r} could not be downloaded ({brief(error)})"


def address(repo_id: str, kind: str) -> str:
    """Where a repository is looked at; of any kind but ``"dataset"`` and ``"space"`` it is one of models."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{f'{kind}s/' if kind in ('dataset', 'space') else ''}{repo_id}"


def brief(error: BaseException) -> str:
    """The first line of an exception's message: the rest of transformers' messages are links and advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def damaged(folder: str | os.PathLike[str]) -> str | None:
    """Which file of a folder cannot be what its author wrote, and why; None where none is found.

    Asked when loading has failed: libraries seldom name the file.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(_near(Path(folder))):
        if path.suffix == ".json":
            try:
                json.loads(path.read_bytes())
            except (ValueError, OSError) as error:
                return f"{path.name} is damaged (no JSON: {error})"
        elif path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="numpy"):
                    pass
            except (SafetensorError, OSError) as error:
                return f"{path.name} is damaged ({str(error).splitlines()[0]})"
    return None


def because(error: BaseException, folder: str | os.PathLike[str], name: str) -> str:
    """Why something could not be loaded from a folder: the damaged file, where there is one, else the error's words."""
    broken = damaged(folder)
    return f"{broken}; {again(name)}" if broken else brief(error)


def again(name: str) -> str:
    """What to do about a file that is damaged or missing."""
    return "copy it again" if os.path.isdir(name) else "download it again with force_download=True"


def contents(folder: str | os.PathLike[str], repo_id: str | None = None, hub: HubOptions | None = None) -> set[str]:
    """Names of the files in a folder and, where a repository is named and can be asked, of all that it holds."""
    root = Path(folder)
    names = {path.relative_to(root).as_posix() for path in _near(root)}
    if repo_id is not None and hub is not None and not hub.local_files_only:
        from huggingface_hub import HfApi

        try:
            names |= set(HfApi(token=hub.token).list_repo_files(repo_id, revision=hub.revision))
        except Exception:  # it only helps to explain
            return names
    return names


def _near(folder: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it; no deeper, for anybody may name a folder of anything."""
    return (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())


def looks_like(names: Iterable[str]) -> str | None:
    """What a folder with files of these names holds, in words; None where they do not tell."""
    names = set(names)
    if "adapter_config.json" in names or "pytorch_lora_weights.safetensors" in names:
        return "a LoRA, which is nothing without its base model"
    if "model_index.json" in names:
        return "a pipeline of diffusers, which draws pictures"
    if any(name.endswith((".parquet", ".jsonl", ".csv")) for name in names):
        return "a data set"
    return None


def pickles(names: Iterable[str]) -> list[str]:
    """Those of the names that are weights in a format that runs code."""
    left_by_training = ("training_args.bin", "optimizer.pt", "scheduler.pt")
    return sorted(name for name in names if Path(name).suffix in PICKLES and Path(name).name not in left_by_training)


def refuse_pickles(what: str, names: Iterable[str]) -> None:
    """Refuse weights that are there as pickles only.

    Raises:
        HubError: naming them.
    """
    if found := pickles(names):
        raise HubError(
            f"{what} has its weights only as {', '.join(found[:2])}{' …' if len(found) > 2 else ''}, and such pickles"
            " run code when they are loaded: ask its author for safetensors, or convert them where you trust them"
        )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _no_connection(error: BaseException) -> bool:
    """Whether nothing answered at all."""
    return isinstance(error, ConnectionRefusedError) or type(error).__name__ in (
        "ConnectError",
        "ConnectTimeout",
        "ProxyError",
        "gaierror",
    )


def _other_kind(repo_id: str, hub: HubOptions, kind: Kind) -> str | None:
    """What a repository is that is none of the expected kind, where the Hub says so."""
    from huggingface_hub import HfApi

    api = HfApi(token=hub.token)
    for other in NAMES:
        if other != kind:
            try:
                if api.repo_exists(repo_id, repo_type=other):
                    return other
            except Exception:  # it only helps to explain
                return None
    return None


def _revisions(repo_id: str, hub: HubOptions, kind: Kind, most: int = 8) -> list[str]:
    """Names of a repository's branches and tags, a few, where the Hub says so."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi(token=hub.token).list_repo_refs(repo_id, repo_type=kind)
    except Exception:  # it only helps to explain
        return []
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return names if len(names) <= most else [*names[:most], "…"]
