"""The response format, read and written in one place: a think block, then a JSON list of defects.

Reading has two modes. Strict is the format gate of the detector reward. Tolerant saves every complete object of a text
that is not quite JSON; it never repairs a value, and it never takes silence for "no defect".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sdg.boxes import BoxOrder, reorder
from sdg.defects import Defect, DefectSet, DefectType
from sdg.response.nearly_json import BOX_KEY, LONGEST_NUMBER, NUMBER, Reader, Span

_THINK_OPEN = re.compile(r"<think>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think>", re.IGNORECASE)
_ANSWER_OPEN = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_CLOSE = re.compile(r"</answer>", re.IGNORECASE)
_TAG = re.compile(r"<(?=/?(?:think|answer)\b)", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w-]*")
_EMPTY_LIST = re.compile(r"\[\s*\]")
_EMPTY_WRAPPER = re.compile(r"\s*\{\s{0,20}[\"']\w{1,40}[\"']\s{0,20}:\s{0,20}\[\s{0,20}\]\s{0,20}\}")
_BOX_NAMES = ("box_2d", "bbox_2d")


class Place(NamedTuple):
    """Where in a response a defect is written: its object, and the values in it; None for one that is not found."""

    object: Span
    label: Span | None
    box: Span | None
    description: Span | None
    importance: Span | None


class ResponseFormatError(ValueError):
    """The text says neither which defects there are nor that there are none."""


def _whole(digits: str) -> float:
    # Digits that run on are read as too large instead of costing quadratic time.
    return int(digits) if len(digits) <= LONGEST_NUMBER else math.inf


_DECODER = json.JSONDecoder(parse_int=_whole, strict=False)


def parse_response(text: str, strict: bool = False, order: BoxOrder = "xyxy") -> DefectSet:
    """Read the defects out of a model's response.

    Both modes round coordinates, then ask for x0 < x1, y0 < y1 and the grid 0..1000.

    Args:
        text: the response.
        strict: the reward's format gate (App. D): a think tag, a closed answer block with a JSON list (a code fence
            round it is tolerated, a blank block is the empty list), and in every item a box, a label, a description
            and an importance of 1..100. Otherwise every complete object is saved: closed, with a valid box and label;
            without a description its reason is "", without an importance that is None. An object with a bad value is
            dropped, exact repeats collapse, and of two answers the first counts.
        order: the order of coordinates that the model was told to write.

    Returns:
        The defects, with the think text as ``reasoning`` and the whole text as ``raw``.

    Raises:
        ResponseFormatError: strict, where the gate closes; tolerant, where the text answers nothing: no list at all, a
            list cut off before its first complete object, or a list of which no object is usable.
        ValueError: for an unknown ``order``.

    Example:
        >>> parse_response('<answer>[{"box_2d": [1, 2, 30, 40], "label": "artifact"}]</answer>')[0].box
        (1, 2, 30, 40)
    """
    reorder((), order)  # an unknown order is the caller's mistake, not the text's
    reasoning, start = _split(text)
    defects = _gate(text, start, order) if strict else _salvage(text, start, order)
    return DefectSet(tuple(defects), reasoning=reasoning, raw=text)


def render_response(defect_set: DefectSet) -> str:
    """Write a set in the response format; :func:`parse_response` reads it back, in both modes.

    Tags inside a reason are escaped as JSON allows, tags inside the think text as ``&lt;``. An importance of None is
    left out, which the strict mode does not accept.
    """
    items = []
    for defect in defect_set:
        item: dict[str, Any] = {"box_2d": list(defect.box), "label": defect.type.value}
        item["description"] = defect.reason
        if defect.importance is not None:
            item["importance"] = defect.importance
        items.append(item)
    answer = _TAG.sub(r"\\u003c", json.dumps(items, ensure_ascii=False))
    return f"<think>{_TAG.sub('&lt;', defect_set.reasoning or '')}</think>\n<answer>{answer}</answer>"


def locate(text: str, order: BoxOrder = "xyxy") -> dict[Defect, Place]:
    """Where the defects that :func:`parse_response` reads in its tolerant mode are written.

    Of exact repeats the first counts. What stands before the answer, in the think text above all, is not looked at. A
    defect whose object is too unusual to be taken apart is left out.

    Example:
        >>> text = '<answer>[{"box_2d": [1, 2, 30, 40], "label": "artifact"}]</answer>'
        >>> (place,) = locate(text).values()
        >>> text[slice(*place.box)], text[slice(*place.label)]
        ('[1, 2, 30, 40]', '"artifact"')
    """
    _, start = _split(text)
    opened = _ANSWER_OPEN.search(text, start)
    found: dict[Defect, Place] = {}
    for fields, first, end in _keyed_objects(text, opened.end() if opened else start, tagged=opened is not None):
        defect = _usable(fields, order)
        if defect is None or defect in found:
            continue
        reader = Reader(text, end)
        reader.read(first)
        at = reader.places
        box, description = (_field(at, *names) for names in (_BOX_NAMES, ("description", "desc")))
        found[defect] = Place((first, end), at.get("label"), box, description, at.get("importance"))
    return found


def _split(text: str) -> tuple[str | None, int]:
    """The think text, and where the rest begins. An answer tag ends a think block that was never closed."""
    opened = _THINK_OPEN.search(text)
    closed = _THINK_CLOSE.search(text, opened.end() if opened else 0)
    if closed is None:
        if opened is None:
            return None, 0
        answer = _ANSWER_OPEN.search(text, opened.end())
        end = answer.start() if answer else len(text)
        return text[opened.end() : end].strip(), end
    first = _ANSWER_OPEN.search(text)
    if opened is None and first is not None and first.start() < closed.start():
        return None, 0
    reasoning = text[opened.end() if opened else 0 : closed.start()].strip()
    # Further think tags before the answer belong to the thinking too.
    answer = _ANSWER_OPEN.search(text, closed.end())
    last = closed.end()
    for more in _THINK_CLOSE.finditer(text, last, answer.start() if answer else len(text)):
        last = more.end()
    return reasoning, last


# --- strict -----------------------------------------------------------------------------------------------------------


def _gate(text: str, start: int, order: BoxOrder) -> Iterator[Defect]:
    if _THINK_OPEN.search(text) is None:
        raise ResponseFormatError("no <think> tag; a response begins with <think>…</think>")
    opened = _ANSWER_OPEN.search(text, start)
    closed = _ANSWER_CLOSE.search(text, opened.end()) if opened else None
    if opened is None or closed is None:
        raise ResponseFormatError("no closed answer block; a response ends with <answer>[…]</answer>")
    body = text[opened.end() : closed.start()].strip()
    if len(body) >= 6 and body.startswith("```") and body.endswith("```"):
        body = body[3:-3]
        body = body[_LANGUAGE.match(body).end() :].strip()  # type: ignore[union-attr]
    if not body:
        return iter(())
    try:
        items = json.loads(body, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ResponseFormatError(f"the answer is not JSON: {str(error)[:80]}") from None
    if not isinstance(items, list):
        raise ResponseFormatError(f"the answer is a {type(items).__name__}, not a list of defects")
    return iter([_strict_item(index, item, order) for index, item in enumerate(items)])


def _strict_item(index: int, item: Any, order: BoxOrder) -> Defect:
    if not isinstance(item, dict):
        raise ResponseFormatError(f"defect {index} is a {type(item).__name__}, not an object")
    box = _field(item, "box_2d", "bbox_2d")
    reason = _field(item, "description", "desc")
    importance = item.get("importance")
    if not isinstance(box, list) or not all(_is_number(c) for c in box):
        raise ResponseFormatError(f"defect {index}: box_2d={box!r:.60} is not four numbers")
    if not isinstance(reason, str):
        raise ResponseFormatError(f"defect {index}: description={reason!r:.60} is not text")
    if importance is None or not _is_number(importance) or importance != int(importance):
        raise ResponseFormatError(f"defect {index}: importance={importance!r:.60} is not an integer in 1..100")
    try:
        return Defect(_rounded(box, order), item.get("label"), reason, int(importance))  # type: ignore[arg-type]
    except ValueError as error:
        raise ResponseFormatError(f"defect {index}: {str(error)[:200]}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _field(item: Mapping[str, Any], *names: str) -> Any:
    return next((item[name] for name in names if name in item), None)


def _rounded(box: list[Any], order: BoxOrder) -> tuple[int, ...]:
    if len(box) != 4:
        raise ValueError(f"box_2d={box!r:.60} is not four numbers")
    return tuple(round(c) for c in reorder([box], order)[0].tolist())


# --- tolerant ---------------------------------------------------------------------------------------------------------


def _salvage(text: str, start: int, order: BoxOrder) -> list[Defect]:
    opened = _ANSWER_OPEN.search(text, start)
    begin = opened.end() if opened else start
    found: dict[Defect, None] = {}
    seen = 0
    for fields in _objects(text, begin, tagged=opened is not None):
        seen += 1
        defect = _usable(fields, order)
        if defect is not None:
            found.setdefault(defect)
    if found:
        return list(found)
    if seen:
        raise ResponseFormatError(f"of {seen} objects in the answer none has a valid box and label")
    if _says_nothing_is_wrong(text, begin, tagged=opened is not None):
        return []
    where = "the answer block" if opened else "the text"
    raise ResponseFormatError(f"no complete defect and no empty list in {where}: {text[begin : begin + 60]!r}")


def _says_nothing_is_wrong(text: str, begin: int, tagged: bool) -> bool:
    closed = _ANSWER_CLOSE.search(text, begin) if tagged else None
    brace = text.find("{", begin)
    end = closed.start() if closed else len(text)
    if closed is not None:
        body = text[begin:end]
        if not body.replace("```json", "").replace("```", "").strip():
            return True
    if 0 <= brace < end:
        return _EMPTY_WRAPPER.match(text, brace) is not None or _EMPTY_LIST.search(text, begin, brace) is not None
    return _EMPTY_LIST.search(text, begin, end) is not None


def _objects(text: str, begin: int, tagged: bool) -> Iterator[Mapping[str, Any]]:
    """The fields of every closed object with a box, in order, up to the end of the first answer.

    Objects are looked for at the box keys, so that a broken one cannot take its neighbours along.
    """
    bracket = text.find("[", begin)
    prefix = text[begin:bracket].strip(" \n\r\t`jsonJSON")
    whole = _decoded(text, bracket) if bracket >= 0 and not prefix else None
    if whole is not None and (items := [item for item in whole[0] if isinstance(item, dict)]):
        closed = _ANSWER_CLOSE.search(text, whole[1]) if tagged else None
        if closed is None or BOX_KEY.search(text, whole[1], closed.start()) is None:
            yield from items
            return
    yield from (fields for fields, _, _ in _keyed_objects(text, begin, tagged))


def _keyed_objects(text: str, begin: int, tagged: bool) -> Iterator[tuple[Mapping[str, Any], int, int]]:
    """The same read object by object: its fields, where the first of them begins, and where it ends."""
    keys = [match.start() for match in BOX_KEY.finditer(text, begin)]
    end, read_before = begin, False
    for index, key in enumerate(keys):
        if key < end:
            continue
        following = keys[index + 1] if index + 1 < len(keys) else len(text)
        braces = _braces(text, max(end, keys[index - 1] if index else begin), key)
        gap = text[end : braces[0] if braces else key]
        if _ANSWER_CLOSE.search(gap) or (read_before and not tagged and "]" in gap):
            return
        read_before = False
        if text.find("]", key, following) < 0:
            continue
        for start in braces or [key - 1]:
            result = (_decoded(text, start) if braces else None) or Reader(text, following).read(start + 1)
            if result is not None and result[1] > key and any(name.lower() in _BOX_NAMES for name in result[0]):
                yield result[0], start + 1, result[1]
                end, read_before = result[1], True
                break


def _braces(text: str, low: int, high: int) -> list[int]:
    """Where the object of the box key at ``high`` may begin: the first brace, or, if a reason holds it, the last."""
    first, last = text.find("{", low, high), text.rfind("{", low, high)
    return [] if first < 0 else [first] if first == last else [first, last]


def _decoded(text: str, at: int) -> tuple[Any, int] | None:
    """The JSON value that begins there, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    """A number, or text that spells one; None for anything else."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def _usable(fields: Mapping[str, Any], order: BoxOrder) -> Defect | None:
    item = {key.strip().lower(): value for key, value in fields.items()}
    box, label = _field(item, "box_2d", "bbox_2d"), item.get("label")
    if not isinstance(box, list) or not isinstance(label, str):
        return None
    numbers = [_number(c) for c in box]
    importance = _number(item.get("importance"))
    reason = _field(item, "description", "desc")
    known = [n for n in [*numbers, 0 if importance is None else importance] if n is not None and math.isfinite(n)]
    if len(known) <= len(numbers):
        return None
    try:
        return Defect(
            _rounded(known[:-1], order),  # type: ignore[arg-type]
            DefectType(label.strip().lower()),
            reason if isinstance(reason, str) else "",
            None if importance is None else round(importance),
        )
    except ValueError:
        return None
