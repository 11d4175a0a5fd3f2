"""Captions: what a plan sounds like. Every split has sentence patterns of its own, made of the same words."""

from __future__ import annotations

import numpy as np

from sdg.microworld.kinds import plural
from sdg.microworld.scene import Group, Plan

NUMBERS = ("no", "one", "two", "three", "four")

# {0}, {1}, {2} are the groups in the caption's order. Patterns are disjoint between splits (a test holds that); their
# words are not, since a word that only the test split uses could not be learnt.
_PATTERNS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "alone": (
            "{0}",
            "a photo of {0}",
            "{0} outside",
            "you can see {0} in this picture",
            "look at {0} on open ground",
        ),
        "left": (
            "{0} to the left of {1}",
            "a photo of {0} left of {1}",
            "{0} on the left and {1} on the right",
            "on the left side {0} , on the right side {1}",
            "the picture shows {0} on the left of {1}",
        ),
        "right": (
            "{0} to the right of {1}",
            "a photo of {0} right of {1}",
            "{0} on the right and {1} on the left",
            "on the right side {0} , on the left side {1}",
            "the picture shows {0} on the right of {1}",
        ),
        "beside": ("{0} next to {1}", "a photo of {0} beside {1}", "{0} together with {1}", "you can see {0} near {1}"),
        "list": ("{0} and {1}", "a photo of {0} and {1}", "this picture shows {0} and {1} outside"),
    },
    "validation": {
        "alone": ("a picture of {0}", "this photo shows {0} outside"),
        "left": ("a picture of {0} to the left of {1}", "you can see {0} on the left of {1}"),
        "right": ("a picture of {0} to the right of {1}", "you can see {0} on the right of {1}"),
        "beside": ("a picture of {0} next to {1}", "look at {0} together with {1}"),
        "list": ("a picture of {0} and {1}", "look at {0} and {1}"),
    },
    "test": {
        "alone": ("a photo that shows {0}", "{0} on open ground", "this is a picture of {0}"),
        "left": ("{0} on the left of {1}", "this is a photo of {0} to the left of {1}"),
        "right": ("{0} on the right of {1}", "this is a photo of {0} to the right of {1}"),
        "beside": ("{0} beside {1}", "this is a photo of {0} next to {1}", "{0} near {1} outside"),
        "list": ("this is a photo of {0} and {1}", "you can see {0} and {1} in this picture"),
    },
}


def patterns(split: str) -> dict[str, tuple[str, ...]]:
    """The sentence patterns of a split, by the plan's form."""
    return _PATTERNS[split]


def noun_phrase(colour: str, kind: str, count: int = 1) -> str:
    """ "a red car", "an orange cup", "two red cars"."""
    if count > 1:
        return f"{NUMBERS[count]} {colour} {plural(kind)}"
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}"


def phrase(group: Group) -> str:
    """The noun phrase of a group."""
    return noun_phrase(group.colour, group.kind, group.count)


def caption(plan: Plan, split: str, rng: np.random.Generator) -> str:
    """A caption that asks for the plan, in one of the split's patterns."""
    pattern = str(rng.choice(_PATTERNS[split][plan.form]))
    said = [phrase(group) for group in plan.groups]
    if len(said) == 3:
        joined = f"{said[1]} and {said[2]}" if plan.form == "beside" else said[2]
        said = [said[0], joined] if plan.form == "beside" else [f"{said[0]} , {said[1]}", joined]
    return pattern.format(*said)
