"""A small Hub on a real socket: enough of its HTTP interface for the real client, and faults when a test asks for them.

Repositories and files live in memory. A client finds it through ``HF_ENDPOINT``, set before it is imported: see
:meth:`LocalHub.environment` for other processes, and :meth:`LocalHub.here` for this one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from card_schema import wrong

OWNER, STRANGER = "hf_" + "owner" * 7, "hf_" + "stranger" * 5
"""Tokens: of a member of ``org``, and of somebody else."""

USERS = {OWNER: ("me", ["org"]), STRANGER: ("stranger", [])}
LARGE = (".safetensors", ".whl", ".parquet", ".png", ".jpg", ".bin")
LARGE_BYTES = 1_000_000
"""Files that end like that, or are larger, are stored by their hash, as git LFS does."""


@dataclass
class Entry:
    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """The hash by which the client knows the file again: its content's, or git's of it."""
        if self.lfs:
            return hashlib.sha256(self.data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repo:
    type: str
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)  # by id, oldest first: what the tree holds
    titles: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, Entry], title: str) -> str:
        oid = hashlib.sha1(f"{self.type}{self.id}{len(self.commits)}{title}".encode()).hexdigest()
        self.commits[oid], self.titles[oid], self.branches[branch] = tree, title, oid
        return oid

    def find(self, revision: str) -> str | None:
        name = revision.removeprefix("refs/heads/")
        oid = self.branches.get(name) or self.tags.get(name) or revision
        return oid if oid in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """What somebody who checks the revision out gets."""
        return {path: entry.data for path, entry in self.commits[self.find(revision) or ""].items()}


@dataclass
class Request:
    method: str
    path: str
    status: int = 0
    token: str | None = None
    range: str | None = None


@dataclass
class Fault:
    method: str
    pattern: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes of the body, sent or received, after which the connection is closed


class LocalHub:
    """The server; ``with LocalHub() as hub`` starts and stops it."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        # Another host, as on the Hub: the client does not carry its token there.
        self.storage = f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = OWNER) -> dict[str, str]:
        """Variables for another process; ``home`` takes its cache."""
        own = {"HF_TOKEN": token} if token else {}
        return {
            "HF_ENDPOINT": self.address,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **own,
        }

    @contextmanager
    def here(self, monkeypatch: Any, token: str | None = OWNER) -> Iterator[LocalHub]:
        """Let the client in this process, which is told to stay offline, use this server; it does not wait to retry."""
        from huggingface_hub import constants, hf_api
        from huggingface_hub.utils import _http

        with monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", self.address)
            patch.setattr(hf_api.api, "endpoint", self.address)  # of the module's own functions, which diffusers calls
            template = f"{self.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            patch.setattr(constants, "HF_HUB_OFFLINE", False)
            patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            patch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
            patch.setattr(_http.time, "sleep", lambda seconds: None)
            patch.setenv("HF_TOKEN", token) if token else patch.delenv("HF_TOKEN", raising=False)
            yield self

    def create(self, repo_id: str, type: str = "model", files: dict[str, bytes] | None = None, **more: Any) -> Repo:
        """A repository that is there already."""
        repo = self.repos[type, repo_id] = Repo(type, repo_id, **more)
        repo.commit("main", {".gitattributes": Entry(b"*.safetensors filter=lfs\n", False)}, "initial commit")
        if files:
            tree = {path: Entry(data, _large(path, len(data))) for path, data in files.items()}
            self.blobs |= {entry.oid: entry.data for entry in tree.values() if entry.lfs}
            repo.commit("main", repo.commits[repo.branches["main"]] | tree, "files")
        return repo

    def fail(self, method: str, pattern: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next requests whose path matches with an error."""
        self.faults.append(Fault(method, pattern, times, status, {k.replace("_", "-"): v for k, v in headers.items()}))

    def cut(self, method: str, pattern: str, after: int, times: int = 1) -> None:
        """Close the connection of the next requests that match, after so many bytes of the body."""
        self.faults.append(Fault(method, pattern, times, cut=after))

    def asked(self, method: str, pattern: str) -> list[Request]:
        """The requests so far whose path matches."""
        return [r for r in list(self.requests) if r.method == method and re.search(pattern, r.path)]


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        self.status, self.body = status, {"error": message}
        self.headers = headers | ({"X-Error-Code": code} if code else {}) | {"X-Error-Message": message}


def _large(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LARGE) or size > LARGE_BYTES)


def _route(path: str) -> tuple[str, re.Match[str]] | None:
    for name, pattern in ROUTES.items():
        if found := re.fullmatch(pattern, path):
            return name, found
    return None


_API = r"/api/(?P<type>model|dataset|space)s/(?P<id>[^/]+/[^/]+)"
ROUTES = {
    "create": r"/api/repos/create",
    "whoami": r"/api/whoami-v2",
    "yaml": r"/api/validate-yaml",
    "preupload": _API + r"/preupload/(?P<rev>[^/]+)",
    "commit": _API + r"/commit/(?P<rev>[^/]+)",
    "branch": _API + r"/branch/(?P<rev>[^/]+)",
    "tag": _API + r"/tag/(?P<rev>[^/]+)",
    "refs": _API + r"/refs",
    "paths": _API + r"/paths-info/(?P<rev>[^/]+)",
    "tree": _API + r"/tree/(?P<rev>[^/]+)(?:/(?P<path>.*))?",
    "info": _API + r"(?:/revision/(?P<rev>[^/]+))?",
    "batch": r"/(?:(?P<type>dataset|space)s/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
    "blob": r"/lfs/(?P<oid>[0-9a-f]{64})",
    "resolve": r"/(?:(?P<type>dataset|space)s/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)",
}
WRITES = ("preupload", "commit", "branch", "tag", "batch")


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        body = b""

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve()

        do_HEAD = do_POST = do_PUT = do_GET

        def _serve(self) -> None:
            url = urlsplit(self.path)
            self.query = parse_qs(url.query)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            self.note = Request(self.command, url.path, token=token, range=self.headers.get("Range"))
            hub.requests.append(self.note)
            fault = self._fault(url.path)
            length = int(self.headers.get("Content-Length") or 0)
            if fault and fault.cut is not None and self.command in ("PUT", "POST"):
                self.rfile.read(min(fault.cut, length))
                self.close_connection = True
                self.connection.close()
                return
            self.body = self.rfile.read(length)
            self.cut = fault.cut if fault else None
            try:
                if fault and fault.status:
                    raise _Refused(fault.status, "as the test asks", None, **fault.headers)
                route = _route(url.path)
                if route is None:
                    raise _Refused(404, f"no such endpoint: {url.path}")
                with lock:
                    self._answer(*route)
            except _Refused as refused:
                self._send(refused.status, refused.body, refused.headers)

        def _fault(self, path: str) -> Fault | None:
            for fault in hub.faults:
                if fault.times and fault.method == self.command and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
            return None

        def _send(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.note.status = status
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            cut = getattr(self, "cut", None)
            self.wfile.write(data if cut is None else data[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

        def _user(self) -> tuple[str, list[str]] | None:
            if self.note.token is None:
                return None
            if self.note.token not in USERS:
                raise _Refused(401, "Invalid credentials in Authorization header")
            return USERS[self.note.token]

        def _may_write(self, owner: str) -> None:
            user = self._user()
            if user is None:
                raise _Refused(401, "Invalid username or password.")
            if owner not in (user[0], *user[1]):
                raise _Refused(403, f"You don't have the rights to create or write to {owner}")

        def _answer(self, name: str, found: re.Match[str]) -> None:
            parts = {k: unquote(v) for k, v in found.groupdict().items() if v is not None}
            if "id" not in parts:
                return getattr(self, f"_{name}")(**parts)
            owner, user = parts["id"].split("/")[0], self._user()
            repo = hub.repos.get((parts.pop("type", "model"), parts.pop("id")))
            mine = user is not None and owner in (user[0], *user[1])
            if repo is None or (repo.private and not mine):
                raise _Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
            if name in WRITES:
                self._may_write(owner)
            if repo.gated and not mine and name == "resolve":
                raise _Refused(401 if user is None else 403, "Access to this model is restricted", "GatedRepo")
            return getattr(self, f"_{name}")(repo, **parts)

        def _at(self, repo: Repo, revision: str) -> tuple[str, dict[str, Entry]]:
            oid = repo.find(revision)
            if oid is None:
                raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return oid, repo.commits[oid]

        def _where(self, repo: Repo) -> str:
            return f"{hub.address}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"

        def _create(self) -> None:
            asked = json.loads(self.body)
            user = self._user()
            owner = asked.get("organization") or (user[0] if user else "")
            self._may_write(owner)
            key = (asked.get("type") or "model", f"{owner}/{asked['name']}")
            if key in hub.repos:
                refused = _Refused(409, "You already created this repo")
                refused.body["url"] = self._where(hub.repos[key])
                raise refused
            if key[0] == "space" and not asked.get("sdk"):
                raise _Refused(400, "a Space needs an sdk")
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self._send(200, {"url": self._where(hub.create(key[1], key[0], private=private)), "id": key[1]})

        def _whoami(self) -> None:
            user = self._user()
            if user is None:
                raise _Refused(401, "Invalid username or password.")
            self._send(200, {"type": "user", "name": user[0], "orgs": [{"name": org} for org in user[1]]})

        def _yaml(self) -> None:
            asked = json.loads(self.body)
            found = [{"message": message} for message in wrong(asked["content"], asked.get("repoType"))]
            self._send(400 if found else 200, {"warnings": [], "errors": found})

        def _preupload(self, repo: Repo, rev: str) -> None:
            tree = self._at(repo, rev)[1]
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": tree[file["path"]].oid if file["path"] in tree else None,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._send(200, {"files": files})

        def _batch(self, repo: Repo) -> None:
            objects = []
            for wanted in json.loads(self.body)["objects"]:
                where = {"upload": {"href": f"{hub.storage}/lfs/{wanted['oid']}"}}
                objects.append(wanted | ({} if wanted["oid"] in hub.blobs else {"actions": where}))
            self._send(200, {"transfer": "basic", "objects": objects})

        def _blob(self, oid: str) -> None:
            if self.command != "PUT":
                return self._file(hub.blobs[oid], oid)
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise _Refused(400, "the content is not what was announced")
            hub.blobs[oid] = self.body
            self._send(200)

        def _commit(self, repo: Repo, rev: str) -> None:
            head, tree = self._at(repo, rev)
            tree = dict(tree)
            title = ""
            for line in self.body.splitlines():
                key, value = (item := json.loads(line))["key"], item["value"]
                if key == "header":
                    title = value["summary"]
                    if value.get("parentCommit") not in (None, head):
                        raise _Refused(412, "A commit has happened since. Please refresh and try again.")
                elif key == "file":
                    tree[value["path"]] = Entry(base64.b64decode(value["content"]), False)
                elif key == "lfsFile":
                    if value["oid"] not in hub.blobs:
                        raise _Refused(400, f"{value['path']} was announced and never sent")
                    tree[value["path"]] = Entry(hub.blobs[value["oid"]], True)
                elif key == "deletedFile":
                    del tree[value["path"]]
            oid = repo.commit(rev, tree, title)
            self._send(200, {"success": True, "commitOid": oid, "commitUrl": f"{self._where(repo)}/commit/{oid}"})

        def _branch(self, repo: Repo, rev: str) -> None:
            if rev in repo.branches:
                raise _Refused(409, "Reference already exists")
            repo.branches[rev] = self._at(repo, json.loads(self.body or b"{}").get("startingPoint") or "main")[0]
            self._send(200, {})

        def _tag(self, repo: Repo, rev: str) -> None:
            repo.tags[json.loads(self.body)["tag"]] = self._at(repo, rev)[0]
            self._send(200, {})

        def _refs(self, repo: Repo) -> None:
            def listed(refs: dict[str, str], kind: str) -> list[dict[str, str]]:
                return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in refs.items()]

            found = {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}
            self._send(200, found)

        def _info(self, repo: Repo, rev: str = "main") -> None:
            oid, tree = self._at(repo, rev)
            about = {"id": repo.id, "sha": oid, "private": repo.private, "gated": "manual" if repo.gated else False}
            about |= {"tags": [], "downloads": 0, "likes": 0, "disabled": False, "author": repo.id.split("/")[0]}
            self._send(200, about | {"siblings": [{"rfilename": path} for path in sorted(tree)]})

        def _listed(self, path: str, entry: Entry) -> dict[str, Any]:
            lfs = {"lfs": {"oid": entry.oid, "size": len(entry.data), "pointerSize": 134}} if entry.lfs else {}
            return {"type": "file", "path": path, "size": len(entry.data), "oid": entry.oid[:40], **lfs}

        def _tree(self, repo: Repo, rev: str, path: str = "") -> None:
            oid, tree = self._at(repo, rev)
            inside = f"{path}/" if path else ""
            names = [name for name in sorted(tree) if name.startswith(inside)]
            if path and not names:
                raise _Refused(404, f"{path} does not exist on {rev}", "EntryNotFound")
            recursive = self.query.get("recursive", [""])[0].lower() in ("true", "1")
            folders = {n[: m.start()] for n in names for m in re.finditer("/", n) if m.start() >= len(inside)}
            files = [self._listed(n, tree[n]) for n in names if recursive or "/" not in n[len(inside) :]]
            shown = [f for f in sorted(folders) if recursive or "/" not in f[len(inside) :]]
            self._send(200, [{"type": "directory", "path": f, "oid": oid, "size": 0} for f in shown] + files)

        def _paths(self, repo: Repo, rev: str) -> None:
            oid, tree = self._at(repo, rev)
            sent = self.body.decode()
            wanted = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent).get("paths", [])
            found = [self._listed(path, tree[path]) for path in wanted if path in tree]
            folders = [p for p in wanted if p not in tree and any(n.startswith(f"{p}/") for n in tree)]
            self._send(200, [*found, *({"type": "directory", "path": p, "oid": oid, "size": 0} for p in folders)])

        def _resolve(self, repo: Repo, rev: str, path: str) -> None:
            oid, tree = self._at(repo, rev)
            if path not in tree:
                raise _Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": oid})
            entry = tree[path]
            headers = {"X-Repo-Commit": oid, "ETag": f'"{entry.oid}"'}
            if not entry.lfs:
                return self._file(entry.data, entry.oid, headers)
            linked = {"X-Linked-Size": str(len(entry.data)), "X-Linked-ETag": f'"{entry.oid}"'}
            self.cut = None  # what is cut is the file, not the way to it
            self._send(302, b"", headers | linked | {"Location": f"{hub.storage}/lfs/{entry.oid}"})

        def _file(self, data: bytes, etag: str, headers: dict[str, str] | None = None) -> None:
            headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **(headers or {})}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if asked is None:
                return self._send(200, data, headers)
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            if first >= len(data):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            self._send(206, data[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    return Handler


def wait_until(condition: Any, seconds: float = 5) -> bool:
    """Whether the condition came true in time: requests are noted before they are answered."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())
