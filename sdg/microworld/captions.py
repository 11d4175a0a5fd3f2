"""Captions: what a plan sounds like. Every split has sentence patterns of its own, made of the same words."""

from __future__ import annotations

import numpy as np

from sdg.microworld.kinds import plural
from sdg.microworld.scene import Group, Plan

NUMBERS = ("no", "one", "two", "three", "four")

# {0}, {1}, {2} are the groups in the caption's order. Patterns are disjoint between splits (a test holds that); their
# words are not, since a word that only the test split uses could not be learnt.
_HELD_OUT: dict[str, dict[str, tuple[str, ...]]] = {
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

# Training composes its sentences, so that a detector has to read what stands between the groups instead of knowing a
# handful of sentences by heart.
_OPENINGS = (
    "",
    "a photo of ",
    "a photo with ",
    "a picture with ",
    "the picture shows ",
    "the photo shows ",
    "this picture shows ",
    "you can see ",
    "in this picture you can see ",
    "in the photo you can see ",
    "look at ",
    "look at this picture of ",
    "look at the photo : ",
    "here you can see ",
    "the place has ",
)
_CLOSINGS = (
    "",
    " outside",
    " in this picture",
    " on open ground",
    " in the open",
    " on the ground",
    " outside in the light",
)
_SIDES = (
    "{0} to the SIDE of {1}",
    "{0} SIDE of {1}",
    "{0} on the SIDE of {1}",
    "{0} on the SIDE side of {1}",
    "{0} , to the SIDE of {1}",
    "{0} at the SIDE side of {1}",
    "{0} stands SIDE of {1}",
    "{0} with {1} to the OTHER",
    "{0} with {1} on the OTHER",
    "{0} with {1} on its OTHER side",
    "{0} on the SIDE and {1} on the OTHER",
    "{0} on the SIDE , {1} on the OTHER",
    "{0} SIDE and {1} OTHER",
    "on the SIDE side {0} , on the OTHER side {1}",
    "on the SIDE {0} and on the OTHER {1}",
)
_FORMS: dict[str, tuple[str, ...]] = {
    "alone": ("{0}",),
    "left": tuple(side.replace("SIDE", "left").replace("OTHER", "right") for side in _SIDES),
    "right": tuple(side.replace("SIDE", "right").replace("OTHER", "left") for side in _SIDES),
    "beside": (
        "{0} next to {1}",
        "{0} beside {1}",
        "{0} near {1}",
        "{0} together with {1}",
        "{0} with {1} at its side",
        "{0} with {1} near",
        "{0} stands near {1}",
        "{0} , next to {1}",
    ),
    "list": ("{0} and {1}", "{0} , {1}", "{0} , and {1}"),
}


def _composed() -> dict[str, tuple[str, ...]]:
    """Training's sentences: every opening, form and closing, without those that another split holds."""
    composed = {}
    for form, middles in _FORMS.items():
        taken = {sentence for split in _HELD_OUT.values() for sentence in split[form]}
        sentences = (f"{o}{middle}{c}" for o in _OPENINGS for middle in middles for c in _CLOSINGS)
        composed[form] = tuple(sentence for sentence in sentences if sentence not in taken)
    return composed


_PATTERNS = {"train": _composed(), **_HELD_OUT}


def patterns(split: str) -> dict[str, tuple[str, ...]]:
    """The sentence patterns of a split, by the plan's form."""
    return _PATTERNS[split]


def pieces() -> list[str]:
    """What the sentence patterns of all splits are made of."""
    held = [sentence for forms in _HELD_OUT.values() for sentences in forms.values() for sentence in sentences]
    return [*_OPENINGS, *_CLOSINGS, *(middle for middles in _FORMS.values() for middle in middles), *held]


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
    choices = _PATTERNS[split][plan.form]
    pattern = choices[rng.integers(len(choices))]
    said = [phrase(group) for group in plan.groups]
    if len(said) == 3:
        joined = f"{said[1]} and {said[2]}" if plan.form == "beside" else said[2]
        said = [said[0], joined] if plan.form == "beside" else [f"{said[0]} , {said[1]}", joined]
    return pattern.format(*said)
