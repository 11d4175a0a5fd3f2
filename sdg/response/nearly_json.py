"""Reads objects that are nearly JSON: quotes of any kind, bare keys, comments, unescaped quotes in a string."""

from __future__ import annotations

import math
import re
from typing import Any

Span = tuple[int, int]
"""First character and the one after the last."""

_SPACE = re.compile(r"\s*")
_QUOTES = {'"': '"', "'": "'", "“": '“”"', "”": '“”"', "‘": "‘’'", "’": "‘’'"}
_QUOTE = "[\"'“”‘’]"
_KEY = re.compile(rf"({_QUOTE}?)([A-Za-z_]\w{{0,40}}){_QUOTE}?\s{{0,20}}[:=]")
BOX_KEY = re.compile(rf"{_QUOTE}?\bb?box_2d{_QUOTE}?\s{{0,20}}[:=]\s{{0,20}}\[", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_LITERAL = re.compile(r"[A-Za-z_]\w{0,40}|-Infinity")
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\'\\/bfnrt]))')
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None, "nan": math.nan, "infinity": math.inf}
_KEYS = frozenset({"box_2d", "bbox_2d", "label", "description", "desc", "importance"})
LONGEST_NUMBER = 20
_LONGEST_LIST = 64


class Reader:
    """Reads one object that is nearly JSON: keys and values in order, up to its closing brace.

    Args:
        text: the whole response.
        limit: where the next box key stands; a string that has not ended there never will.

    ``places`` says where the value of each key was read.
    """

    def __init__(self, text: str, limit: int) -> None:
        self.text, self.limit = text, limit
        self.places: dict[str, Span] = {}

    def skip(self, at: int) -> int:
        """Past white space and comments."""
        text = self.text
        while True:
            at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
            if text.startswith(("//", "#"), at):
                end = text.find("\n", at, self.limit)
            elif text.startswith("/*", at):
                end = text.find("*/", at + 2, self.limit)
                end = end + 2 if end >= 0 else end
            else:
                return at
            if end < 0:
                return self.limit
            at = end

    def read(self, at: int) -> tuple[dict[str, Any], int] | None:
        """Fields of the object whose first key is near ``at``, and where it ends; None where it breaks off."""
        fields: dict[str, Any] = {}
        while True:
            at = self.skip(at)
            if self.text.startswith(",", at):
                at += 1
                continue
            if self.text.startswith("}", at):
                return fields, at + 1
            if fields and self.text.startswith(("{", "]"), at):
                return fields, at
            key = _KEY.match(self.text, at)
            if key is None or at >= self.limit:
                return None
            begin = self.skip(key.end())
            value = self.value(begin)
            if value is None:
                return None
            fields[key.group(2).lower()], at = value
            self.places[key.group(2).lower()] = begin, at

    def value(self, at: int) -> tuple[Any, int] | None:
        """A string, number, constant or flat list, and where it ends."""
        char = self.text[at : at + 1]
        if char in _QUOTES and char:
            return self.string(at)
        if char == "[":
            return self.flat_list(at + 1)
        if number := NUMBER.match(self.text, at):
            digits = number.group()
            return (float(digits) if len(digits) <= LONGEST_NUMBER else math.inf), number.end()
        if word := _LITERAL.match(self.text, at):
            return _CONSTANTS.get(word.group().lower().lstrip("-"), word.group()), word.end()
        return None

    def flat_list(self, at: int) -> tuple[list[Any], int] | None:
        items: list[Any] = []
        while len(items) <= _LONGEST_LIST:
            at = self.skip(at)
            char = self.text[at : at + 1]
            if char == ",":
                at += 1
            elif char == "]":
                return items, at + 1
            elif char == "[" or (item := self.value(at)) is None:
                return None
            else:
                items.append(item[0])
                at = item[1]
        return None

    def string(self, at: int) -> tuple[str, int] | None:
        """A quoted string, in which quotes that do not end it may stand unescaped."""
        ends = _QUOTES[self.text[at]]
        position = at + 1
        while position < self.limit:
            char = self.text[position]
            if char == "\\":
                position += 1
            elif char in ends and self.ends_here(position + 1):
                return _unescaped(self.text[at + 1 : position]), position + 1
            position += 1
        return None

    def ends_here(self, at: int) -> bool:
        """Whether what follows a quote can only follow the end of a string."""
        text = self.text
        at = self.skip(at)
        comma = text.startswith(",", at)
        if comma:
            at = self.skip(at + 1)
        if at >= len(text):
            return True
        char = text[at]
        if char == "}":
            after = self.skip(at + 1)
            return after >= len(text) or text[after] in ",]}{<`"
        if char == "{":
            return BOX_KEY.match(text, self.skip(at + 1)) is not None
        if char == "]":
            after = self.skip(at + 1)
            return after >= len(text) or text[after] in ",<`]}"
        if key := _KEY.match(text, at):
            return bool(key.group(1)) or key.group(2).lower() in _KEYS
        # Inside a list of numbers written as text.
        return comma and char in _QUOTES


def _unescaped(body: str) -> str:
    def one(match: re.Match[str]) -> str:
        code, char = match.groups()
        return chr(int(code, 16)) if code else _ESCAPED.get(char, char)

    return _ESCAPE.sub(one, body) if "\\" in body else body
