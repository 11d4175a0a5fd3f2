"""The categories of other data sets, told in this library's types and subtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdg.defects import SUBTYPES, TYPES, DefectType

Category = tuple[str, str | None]
"""A type, and a subtype or None."""


def category_map(categories: Mapping[str, Any] | None) -> dict[str, Category]:
    """A mapping that a caller gives, checked.

    Args:
        categories: name of a category to a type, a subtype, or a pair of both.

    Raises:
        ValueError: naming the category.
    """
    return {str(name): _category(str(name), value) for name, value in (categories or {}).items()}


def _category(name: str, value: Any) -> Category:
    pair = (value, None) if isinstance(value, str) else tuple(value)
    type, subtype = pair if len(pair) == 2 else (value, None)
    for known in TYPES:
        if type in SUBTYPES[known] and subtype is None:
            return known.value, type
    if type not in {t.value for t in TYPES}:
        raise ValueError(
            f"categories: {name!r} goes to {value!r}, which is no type ({', '.join(t.value for t in TYPES)}), "
            f"no subtype ({', '.join(s for names in SUBTYPES.values() for s in names)}) and no pair of them"
        )
    if subtype is not None and subtype not in SUBTYPES[DefectType(type)]:
        raise ValueError(f"categories: {name!r}: {subtype!r} is no subtype of {type}")
    return str(type), subtype


def named_after(name: str) -> Category | None:
    """The type or subtype that a category is called after, whatever the case, blanks and hyphens; else None."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in {t.value for t in TYPES}:
        return plain, None
    return next(((t.value, plain) for t in TYPES if plain in SUBTYPES[t]), None)
