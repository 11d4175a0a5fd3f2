"""Results on disk: one JSON line a picture, written as it is ready, so that a stopped job goes on where it was.

Beside ``results.jsonl`` lies ``results.jsonl.settings.json``: which model and settings wrote it. A job with others is
refused, for a file that mixes two models measures neither.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Protocol

from sdg.jobs.run import Picture

_ROWS = 1000
"""Lines that become parquet at a time: memory stays flat however long the file is."""


class Line(Protocol):
    """What became of a picture, as :class:`sdg.jobs.run.Outcome` tells it."""

    @property
    def picture(self) -> Picture: ...
    def to_line(self) -> dict[str, Any]: ...


class ResumeError(ValueError):
    """A file of results that this job cannot go on with; the message says why and what to do."""


class Results:
    """A file of results, open for more. Use it in a ``with`` statement.

    A last line that was cut off by a kill or a full disk is dropped on opening.

    Args:
        path: JSON lines; made where it does not exist.
        settings: what decides the answers (the model, its options), as JSON values.
        overwrite: start anew instead of going on.
        retry: forget the lines with an ``error``, so that their pictures are looked at again.

    Raises:
        ResumeError: where the file was written with other settings, by something else, or is being written to.
        OSError: where it cannot be read or written.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], *, overwrite: bool = False, retry: bool = False):
        self.path = Path(path)
        self._there: Counter[bytes] = Counter()
        self._failed: Counter[bytes] = Counter()
        self._lock = _locked(self.path)
        try:
            self._file = self._opened(dict(settings), overwrite, retry)
        except BaseException:
            _unlocked(self._lock)
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            _unlocked(self._lock)

    @property
    def left_over(self) -> int:
        """Lines that belong to no picture that was asked for so far."""
        return self._there.total()

    def take(self, picture: Picture) -> bool | None:
        """Whether the picture is done. Each line answers for one picture: the same one twice needs two lines.

        Returns:
            None where no line is its own, else whether that line tells of a failure.
        """
        key = _key(picture.id, picture.name, picture.caption)
        if not self._there[key]:
            return None
        self._there[key] -= 1
        failed = self._failed[key] > 0
        self._failed[key] -= failed
        return failed

    def write(self, outcome: Line) -> None:
        """Put an outcome on disk.

        Raises:
            OSError: where the disk does not take it; what was written before stays whole.
        """
        left = memoryview(f"{to_text(outcome.to_line())}\n".encode())
        try:
            while left:  # an unbuffered file may take less than it is given
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(
                f"{self.path} does not take the result of {outcome.picture.name} ({error}); the same command goes on "
                "from there"
            ) from error

    def _opened(self, settings: dict[str, Any], overwrite: bool, retry: bool) -> IO[bytes]:
        beside = Path(f"{self.path}.settings.json")
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            _same_settings(self.path, beside, settings)
            _mend_end(self.path)
            if retry:
                _replace(self.path, (text for text, line in _lines(self.path) if "error" not in line))
            for _, line in _lines(self.path):
                key = _key(line.get("id"), line.get("image"), line.get("caption"))
                self._there[key] += 1
                self._failed[key] += line.get("error") is not None or line.get("parse_error") is not None
        _replace(beside, [json.dumps(settings, indent=2, ensure_ascii=False).encode() + b"\n"])
        return self.path.open("ab", buffering=0)  # a line is on its way to the disk at once, and never twice


def files_of(path: str | Path) -> set[str]:
    """The files that lines of results name as ``out``; damaged lines name none, nor do results that are not there."""
    named: set[str] = set()
    try:
        with Path(path).open("rb") as file:
            for text in file:
                with suppress(ValueError, AttributeError):
                    name = json.loads(text).get("out")
                    named |= {name} if isinstance(name, str) else set()
    except FileNotFoundError:
        pass
    return named


def to_text(line: Mapping[str, Any]) -> str:
    """A line of results as JSON. A file name that is not valid Unicode is escaped."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(line)
    return text


def write_parquet(results: str | Path, out: str | Path) -> int:
    """Results in JSON lines as one parquet file, put in place when it is whole.

    Columns: ``id``, ``image``, ``caption``, ``generator``, ``defects``, ``reasoning``, ``parse_error``, ``raw``,
    ``info`` (JSON) and ``error``. A picture without an answer has no list of defects, a clean one has an empty one.

    Args:
        results: what :class:`Results` wrote.
        out: the parquet file.

    Returns:
        Number of rows.
    """
    import pyarrow as pa
    from pyarrow import parquet

    text, whole = pa.string(), pa.int32()
    defect = pa.struct(
        [
            ("box", pa.list_(whole)),
            ("type", text),
            ("reason", text),
            ("importance", whole),
            ("tier", text),
            ("subtype", text),
            ("confidence", pa.float64()),
        ]
    )
    columns = [(name, text) for name in ("id", "image", "caption", "generator")]
    columns.append(("defects", pa.list_(defect)))
    columns += [(name, text) for name in ("reasoning", "parse_error", "raw", "info", "error")]
    schema = pa.schema(columns)
    unfinished = Path(f"{out}.unfinished")
    count, rows = 0, []
    with parquet.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for _, line in _lines(Path(results)):
            rows.append(_row(line))
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count, rows = count + len(rows), []
        writer.write_table(pa.Table.from_pylist(rows, schema))
    os.replace(unfinished, out)
    return count + len(rows)


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: None if value is None else _valid(str(value)) for name, value in line.items() if name != "defects"}
    row["info"] = json.dumps(line["info"]) if line.get("info") is not None else None
    row["defects"] = line.get("defects")
    return row


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _key(id: Any, name: Any, caption: Any) -> bytes:
    """Which picture a line is of, in 16 bytes: a million of them must fit into memory."""
    return blake2b(json.dumps([id, name, caption or ""]).encode(), digest_size=16).digest()


def _locked(path: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ResumeError(f"{path}: another run is writing to it; wait for its end, or write elsewhere") from None
    return lock


def _unlocked(lock: Any) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _same_settings(path: Path, beside: Path, settings: Mapping[str, Any]) -> None:
    out = "go on with the same ones, write to another file, or start anew with --overwrite"
    try:
        written = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResumeError(
            f"{path} is there already, without {beside.name}: nobody knows which model wrote it. Write to another "
            "file, or replace it with --overwrite"
        ) from None
    except ValueError as error:
        raise ResumeError(f"{beside} cannot be read ({error}): {out}") from None
    if not isinstance(written, dict):
        raise ResumeError(f"{beside} holds no settings: {out}")
    changed = [name for name in {**written, **settings} if written.get(name) != settings.get(name)]
    if changed:
        said = ", ".join(f"{name} {written.get(name)!r}, now {settings.get(name)!r}" for name in changed)
        raise ResumeError(f"{path} was begun with other settings ({said}): {out}")


def _mend_end(path: Path) -> None:
    """Drop a last line that was cut off; one that only lacks its line end is kept."""
    with path.open("rb+") as file:
        last, size = b"", 0
        for line in file:
            last, size = line, size + len(line)
        if last.endswith(b"\n"):
            return
        try:
            json.loads(last)
        except ValueError:
            file.truncate(size - len(last))
        else:
            file.write(b"\n")


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ResumeError(f"{path}, line {number}: not JSON ({error}); mend or remove the line") from None
            if not isinstance(line, dict) or "image" not in line:
                raise ResumeError(f"{path}, line {number}: not a result, which is an object with an image")
            yield text, line


def _replace(path: Path, lines: Any) -> None:
    """Write a file in place of another, whole or not at all."""
    unfinished = Path(f"{path}.unfinished")
    with unfinished.open("wb") as file:
        file.writelines(lines)
    os.replace(unfinished, path)
