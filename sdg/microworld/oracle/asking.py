"""Captions back into plans: the inverse of :func:`sdg.microworld.captions.caption`, whatever the split."""

from __future__ import annotations

import re

from sdg.microworld.captions import NUMBERS
from sdg.microworld.kinds import COLOURS, KINDS, plural
from sdg.microworld.scene import Group, Plan

_COUNTS = {"a": 1, "an": 1} | {word: count for count, word in enumerate(NUMBERS) if count > 1}
_NOUNS = {word: kind for kind in KINDS for word in (kind, plural(kind))}
_PHRASE = re.compile(rf"\b({'|'.join(_COUNTS)}) ({'|'.join(COLOURS)}) ({'|'.join(sorted(_NOUNS, key=len)[::-1])})\b")
_OPPOSITE = {"left": "right", "right": "left"}


def read_caption(text: str) -> Plan | None:
    """What a caption asks for; None for an empty caption, which asks for nothing.

    Raises:
        ValueError: where the caption names no object, or more than three groups, or sides of other than two groups.
    """
    if not text.strip():
        return None
    phrases = list(_PHRASE.finditer(text))
    if not 1 <= len(phrases) <= 3:
        raise ValueError(f"caption={text!r} names {len(phrases)} groups of objects; a caption of the world has 1 to 3")
    groups = tuple(Group(_NOUNS[p[3]], p[2], _COUNTS[p[1]]) for p in phrases)
    if len(phrases) == 1:
        return Plan(groups, "alone")
    # A side named before the second group is the first group's; after it, it is the second's.
    side = next(iter(re.finditer(r"\b(left|right)\b", text)), None)
    if side is not None:
        if len(phrases) > 2:
            raise ValueError(f"caption={text!r} names a side and {len(phrases)} groups; a side is between two")
        before = side.start() < phrases[1].start()
        return Plan(groups, side[0] if before else _OPPOSITE[side[0]])
    between = text[phrases[0].end() : phrases[1].start()].strip()
    return Plan(groups, "list" if len(phrases) == 3 and between == "," else "beside")
