"""Put measured figures into the cards: tables, paragraphs and heads take them from the files of results.

    python benchmarks/cards.py            # after new results
    python benchmarks/cards.py --check    # writes nothing; exit code 1 where a figure is not that of its file

A comment in the card says where the block below it has its figures from:

    <!-- figures: FILE#KEY; FILE#KEY -->   a table with a column of figures a file, or one file for all columns
    <!-- figures: FILE by COLUMN -->       a table with a row a line of JSON, whose COLUMN the first cell says
    <!-- figures: FILE -->                 a paragraph or a list, each of whose figures is somewhere in the file
    <!-- model-index: FILE -->             the head's model-index

Rows and columns are called as in the file, whatever the case and the signs between words; SDG-Eval's metrics as the
paper calls them. KEY/KEY goes down. A figure keeps as many decimals as the card shows.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from sdg.cards import read_results
from sdg.cards.results import LABELS

ROOT = Path(__file__).resolve().parents[1]
CARDS = sorted((ROOT / "model_cards").glob("*.md"))
NUMBER = re.compile(r"(?<![\w.#-])-?\d[\d,]*(?:\.\d+)?(?![\w.]*\d)")
DECIMALS = re.compile(r"(?<![\w.])\d{1,2}\.\d{3,}")
MARK = re.compile(r"^<!-- figures: (.+?) -->$")
HEAD = re.compile(r"^<!-- model-index: (.+?) -->$", re.M)


class CardError(ValueError):
    """A figure without a file, or a file without the figure; the message names card, row and column."""


def refreshed(text: str, root: Path = ROOT) -> str:
    """The card with every figure as its file has it.

    Raises:
        CardError: for a table with figures, or a paragraph with one of three decimals, that names no file; for a row or
            column that its file does not have; and for a figure in a paragraph that is nowhere in its files.
    """
    if found := HEAD.search(text):
        card = ModelCard(text)
        results = read_results(root / found[1])
        card.data.eval_results = results.model_index()
        card.data.model_name = card.data.model_name or re.search(r"^# (.+)$", text, re.M)[1]  # type: ignore[index]
        card.data.metrics = sorted({entry.metric_type for entry in card.data.eval_results})
        text = f"{str(card).rstrip()}\n"
    done, mark = [], None
    for block in _blocks(text):
        if found := MARK.match(block.strip()):
            mark = found[1]
        elif block.startswith("|"):
            block, mark = _table(block, mark, root), None
        elif block.strip() and not block.startswith(("---\n", "```", "<!--", "#")):
            _check_prose(block, mark, root)
            mark = None
        done.append(block)
    return "".join(done)


def _blocks(text: str) -> Iterator[str]:
    """The card cut at blank lines and round comments, code and its head in one piece each."""
    for part in re.split(r"(\A---\n.*?^---$|^```.*?^```$|^<!-- .*? -->\n)", text, flags=re.M | re.S):
        if part.startswith(("---\n", "```", "<!--")):
            yield part
        else:
            yield from (p for p in re.split(r"(\n{2,}|\A\n)", part) if p)


def _table(block: str, mark: str | None, root: Path) -> str:
    lines = block.splitlines()
    head, rows = _cells(lines[0]), [_cells(line) for line in lines[2:]]
    if mark is None:
        if any(NUMBER.search(cell) for row in rows for cell in row[1:]):
            raise CardError(f"the table {lines[0]!r} has figures, and no comment says from which file")
        return block
    pick = _by_row(mark, root) if " by " in mark else _by_column(mark, len(head) - 1, root)
    out = lines[:2]
    for row in rows:
        if len(row) != len(head):
            raise CardError(f"row {row[0]!r} has {len(row)} cells, its head {len(head)}")
        places = enumerate(zip(head[1:], row[1:], strict=True))
        cells = [cell and _filled(cell, pick(row[0], name, place), row[0], name) for place, (name, cell) in places]
        out.append(f"| {' | '.join([row[0], *cells])} |")
    return "\n".join(out) + ("\n" if block.endswith("\n") else "")


def _by_column(mark: str, columns: int, root: Path) -> Any:
    """How a cell is found where each column has its file."""
    sources = [_load(source.strip(), root) for source in mark.split(";")]
    if len(sources) == 1:
        sources *= columns
    if len(sources) != columns:
        raise CardError(f"{mark!r} names {len(sources)} files for {columns} columns")

    def pick(row: str, column: str, place: int) -> Any:
        found = _get(sources[place], row)
        return _get(found[0], column) if isinstance(found[0], Mapping) else found

    return pick


def _by_row(mark: str, root: Path) -> Any:
    """How a cell is found where each row is a line of JSON."""
    names, _, key = mark.rpartition(" by ")
    lines = [
        json.loads(line) for name in names.split(";") for line in (root / name.strip()).read_text("utf-8").splitlines()
    ]

    def pick(row: str, column: str, place: int) -> Any:
        chosen = [line for line in lines if f"{line[key]:,}" == row]
        if len(chosen) != 1:
            raise CardError(f"{names} has {len(chosen)} lines with {key}={row}")
        return _get(chosen[0], column)

    return pick


def _load(source: str, root: Path) -> Any:
    name, _, path = source.partition("#")
    found = json.loads((root / name).read_text("utf-8"))
    for key in filter(None, path.split("/")):
        if key not in found:
            raise CardError(f"{name} has no {path}")
        found = found[key]
    return found


def _get(found: Mapping[str, Any], label: str) -> tuple[Any, Any]:
    """A value by its label, and its interval where it has one."""
    for key, value in found.items():
        if _plain(key) == _plain(label):
            return value, found.get(f"{key}/ci")
    raise CardError(f"{label!r} is none of {', '.join(k for k in found if not k.endswith('/ci'))}")


def _plain(label: str) -> str:
    for name, (short, _) in LABELS.items():
        label = label.replace(short, name)
    return re.sub(r"[^a-z0-9]", "", label.lower())


def _filled(cell: str, found: tuple[Any, Any], row: str, column: str) -> str:
    """The cell with its numbers replaced: the value, then the ends of its interval."""
    value, interval = found
    if isinstance(value, list):  # how many were found, and of how many
        value = value[0] / value[1] if "." in cell else value[1]
    values = iter([value, *(interval or ())])

    def number(match: re.Match[str]) -> str:
        value = next(values, None)
        if value is None:
            raise CardError(f"{row}, {column}: {match[0]} is a figure that the file does not have")
        return f"{value:,.{len(match[0].partition('.')[2])}f}"

    return NUMBER.sub(number, cell)


def _check_prose(block: str, mark: str | None, root: Path) -> None:
    said = re.sub(r"`[^`]*`|\]\([^)]*\)", "", block)
    if mark is None:
        if found := DECIMALS.search(said):
            raise CardError(f"{found[0]} in {block.strip()[:60]!r} ... has no comment that says from which file it is")
        return
    known = [n for source in mark.split(";") for n in _numbers(_any(source.strip(), root))]
    for found in re.finditer(r"(?<![\w.])(\d+\.\d{2,}|\d+(?= %))", said):
        decimals, scale = len(found[0].partition(".")[2]), 1 if "." in found[0] else 100
        if not any(f"{scale * n:.{decimals}f}" == found[0] for n in known):
            raise CardError(f"{found[0]} in {block.strip()[:60]!r} ... is not in {mark}")


def _any(source: str, root: Path) -> Any:
    if source.endswith(".jsonl"):
        return [json.loads(line) for line in (root / source).read_text("utf-8").splitlines()]
    return _load(source, root)


def _numbers(found: Any) -> Iterator[float]:
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, list):
        for value in found:
            yield from _numbers(value)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield float(found)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="*", type=Path, default=CARDS, help="by default all of model_cards/")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    stale = []
    for path in args.cards:
        text = path.read_text(encoding="utf-8")
        try:
            new = refreshed(text)
        except CardError as error:
            sys.exit(f"{path}: {error}")
        if new != text:
            stale.append(path.name)
            if not args.check:
                path.write_text(new, encoding="utf-8")
    print(f"{len(args.cards)} cards, figures of another file in: {', '.join(stale) or 'none'}")
    sys.exit(bool(stale) and args.check)


if __name__ == "__main__":
    main()
