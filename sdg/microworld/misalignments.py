"""Misalignments: the picture shows something else than the caption asks for.

Box rule: wrong colour, wrong object, extra object: the object. Wrong count (only where the caption states a number) and
wrong relation: the group. Missing object: the object that the caption ties it to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sdg.microworld.kinds import COLOURS, KINDS
from sdg.microworld.scene import MAX_OBJECTS, Plan, Thing


@dataclass(frozen=True)
class Misalignment:
    """One departure from the plan.

    Args:
        kind: one of :data:`MISALIGNMENTS`.
        groups: indices of the plan's groups that it concerns; empty for an extra object.
        targets: uids of the things whose common box is the defect's box.
        asked: what the caption asks for, a word or phrase for the reason.
        seen: what the picture shows instead.
    """

    kind: str
    groups: tuple[int, ...]
    targets: tuple[int, ...]
    asked: str = ""
    seen: str = ""


Outcome = tuple[list[Thing], Misalignment] | None
"""The changed row of things and the misalignment, or None where the plan leaves no room for it."""


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return str(options[int(rng.integers(len(options)))])


def _single(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> int | None:
    """Position of a thing that stands alone for its group."""
    fit = [i for i, t in enumerate(things) if t.group in free and plan.groups[t.group].count == 1]
    return fit[int(rng.integers(len(fit)))] if fit else None


def _uids(things: list[Thing], *groups: int) -> tuple[int, ...]:
    return tuple(t.uid for t in things if t.group in groups)


def _unused_kind(plan: Plan, things: list[Thing], rng: np.random.Generator) -> str:
    used = {g.kind for g in plan.groups} | {t.kind for t in things}
    return _pick(rng, [kind for kind in KINDS if kind not in used])


def _wrong_colour(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> Outcome:
    index = _single(plan, things, rng, free)
    if index is None:
        return None
    thing = things[index]
    colour = _pick(rng, [c for c in COLOURS if c != thing.colour])
    changed = [replace(t, colour=colour) if i == index else t for i, t in enumerate(things)]
    return changed, Misalignment("wrong_colour", (thing.group,), (thing.uid,), thing.colour, colour)


def _wrong_object(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> Outcome:
    index = _single(plan, things, rng, free)
    if index is None:
        return None
    thing = things[index]
    kind = _unused_kind(plan, things, rng)
    changed = [replace(t, kind=kind) if i == index else t for i, t in enumerate(things)]
    return changed, Misalignment("wrong_object", (thing.group,), (thing.uid,), thing.kind, kind)


def _extra_object(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> Outcome:
    if len(things) >= MAX_OBJECTS or any(t.group < 0 for t in things):
        return None
    extra = Thing(_unused_kind(plan, things, rng), _pick(rng, list(COLOURS)), -1, max(t.uid for t in things) + 1)
    at = int(rng.integers(len(things) + 1))
    return [*things[:at], extra, *things[at:]], Misalignment("extra_object", (), (extra.uid,), "", extra.kind)


def _missing_object(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> Outcome:
    anchor = _uids(things, 0)
    fit = [g for g in range(1, len(plan.groups)) if g in free and plan.groups[g].count == 1]
    if plan.form not in ("left", "right", "beside") or not fit or not anchor:
        return None
    group = fit[int(rng.integers(len(fit)))]
    left = [t for t in things if t.group != group]
    return left, Misalignment("missing_object", (group,), anchor, plan.groups[group].kind, plan.groups[0].kind)


def _wrong_count(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> Outcome:
    fit = [g for g in free if plan.groups[g].count > 1]
    if not fit:
        return None
    group = fit[int(rng.integers(len(fit)))]
    members = [t for t in things if t.group == group]
    if len(things) < MAX_OBJECTS and (len(members) == 2 or rng.random() < 0.5):
        twin = replace(members[-1], uid=max(t.uid for t in things) + 1)
        at = things.index(members[-1]) + 1
        changed = [*things[:at], twin, *things[at:]]
    else:
        changed = [t for t in things if t is not members[0]]
    return changed, Misalignment("wrong_count", (group,), _uids(changed, group), str(len(members)), members[0].kind)


def _wrong_relation(plan: Plan, things: list[Thing], rng: np.random.Generator, free: set[int]) -> Outcome:
    if plan.form not in ("left", "right") or not {0, 1} <= free or any(t.group < 0 for t in things):
        return None
    return list(reversed(things)), Misalignment("wrong_relation", (0, 1), _uids(things, 0, 1), plan.form)


_MAKERS: dict[str, tuple[float, Callable[[Plan, list[Thing], np.random.Generator, set[int]], Outcome]]] = {
    "wrong_colour": (0.9, _wrong_colour),
    "wrong_object": (0.8, _wrong_object),
    "extra_object": (0.7, _extra_object),
    "missing_object": (1.2, _missing_object),
    "wrong_count": (1.8, _wrong_count),
    "wrong_relation": (2.2, _wrong_relation),
}
MISALIGNMENTS = tuple(_MAKERS)


def misalign(
    plan: Plan, things: list[Thing], n: int, rng: np.random.Generator
) -> tuple[list[Thing], list[Misalignment]]:
    """Depart from the plan in up to ``n`` ways that do not touch one another.

    Args:
        plan: what the caption asks for.
        things: the plan's objects from left to right.
        n: how many departures to try for.
        rng: random numbers.

    Returns:
        The changed row of things, and the misalignments in the caption's order, an extra object last.
    """
    free, made = set(range(len(plan.groups))), list[Misalignment]()
    left = dict(_MAKERS)
    while len(made) < n and left:
        names = list(left)
        weights = np.array([left[name][0] for name in names])
        name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        outcome = left.pop(name)[1](plan, things, rng, free)
        if outcome is not None:
            things, misalignment = outcome
            made.append(misalignment)
            free -= set(misalignment.groups)
            if name in ("missing_object", "extra_object"):
                left.pop("wrong_relation", None)
            if name in ("missing_object", "wrong_relation"):
                free.discard(0)
    return things, sorted(made, key=lambda m: m.groups or (len(plan.groups),))
