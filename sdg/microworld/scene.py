"""What a caption asks for, and what a picture shows: sampled, laid out, not yet drawn."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdg.microworld.kinds import COLOURS, KINDS, RGB, WORDS

MAX_OBJECTS = 4
SPLITS = {"train": range(8), "validation": range(8, 9), "test": range(9, 10)}
"""Every scene falls into one of ten classes; a split draws from its own classes, so splits share no scene."""

SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((120, 176, 232), (206, 230, 244)),
    "dusk": ((92, 84, 140), (238, 176, 148)),
    "overcast": ((150, 158, 170), (204, 208, 212)),
    "morning": ((166, 200, 222), (248, 226, 190)),
}
GROUNDS: dict[str, RGB] = {
    "grass": (112, 146, 82),
    "sand": (212, 190, 142),
    "stone": (142, 140, 138),
    "earth": (140, 110, 84),
}


@dataclass(frozen=True)
class Group:
    """One to three objects of one kind and colour that the caption names together."""

    kind: str
    colour: str
    count: int = 1


@dataclass(frozen=True)
class Plan:
    """What the caption asks for.

    Args:
        groups: of distinct kinds; the caption names them in this order.
        form: ``alone``; ``left`` or ``right`` (the first group is left or right of the second); ``beside`` (the others
            are tied to the first group); ``list`` (no tie).
    """

    groups: tuple[Group, ...]
    form: str


@dataclass(frozen=True)
class Fault:
    """A geometric artifact of one object; ``part`` and ``side`` say of what and where."""

    kind: str
    part: str = ""
    index: int = 0
    side: int = 1


@dataclass(frozen=True)
class Thing:
    """An object: ``x`` of its middle, ``base`` where it stands, ``height``, all in widths of the picture.

    ``group`` is the index of the plan's group that it stands for, -1 for an extra object.
    """

    kind: str
    colour: str
    group: int
    uid: int
    x: float = 0.0
    base: float = 0.0
    height: float = 0.0
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    word: str = ""
    fault: Fault | None = None

    @property
    def width(self) -> float:
        """Width in widths of the picture."""
        return self.height * KINDS[self.kind].width


@dataclass(frozen=True)
class Scene:
    """A picture to draw: backdrop and things, back to front; ``light`` is -1 with the sun on the left, else 1."""

    sky: str
    ground: str
    horizon: float
    light: int
    grain: int
    things: tuple[Thing, ...]


def sample_plan(rng: np.random.Generator) -> Plan:
    """A caption's content: one to three groups, at most four objects."""
    n_groups = int(rng.choice([1, 2, 3], p=[0.34, 0.5, 0.16]))
    kinds = rng.permutation(list(KINDS))[:n_groups]
    groups = [Group(str(kind), str(rng.choice(list(COLOURS)))) for kind in kinds]
    if rng.random() < 0.3:
        index = int(rng.integers(n_groups))
        room = MAX_OBJECTS - (n_groups - 1)
        groups[index] = replace(groups[index], count=int(rng.integers(2, min(room, 3) + 1)))
    if n_groups == 1:
        form = "alone"
    elif n_groups == 2:
        form = str(rng.choice(["left", "right", "beside"], p=[0.3, 0.3, 0.4]))
    else:
        form = str(rng.choice(["beside", "list"]))
    return Plan(tuple(groups), form)


def sample_backdrop(rng: np.random.Generator) -> Scene:
    """A backdrop without things."""
    return Scene(
        sky=str(rng.choice(list(SKIES))),
        ground=str(rng.choice(list(GROUNDS))),
        horizon=float(rng.uniform(0.5, 0.66)),
        light=int(rng.choice([-1, 1])),
        grain=int(rng.integers(2**31)),
        things=(),
    )


def scene_class(plan: Plan, backdrop: Scene) -> int:
    """Class 0..9 of a scene, from what is in it and where it plays; see :data:`SPLITS`."""
    key = (sorted((g.kind, g.colour, g.count) for g in plan.groups), plan.form, backdrop.sky, backdrop.ground)
    return zlib.crc32(repr((key, backdrop.light)).encode()) % 10


def arrange(plan: Plan, rng: np.random.Generator) -> list[Thing]:
    """The plan's objects from left to right, not yet placed."""
    order = list(range(len(plan.groups)))
    if plan.form == "right":
        order.reverse()
    elif plan.form != "left":
        rng.shuffle(order)
    things: list[Thing] = []
    for group in order:
        for _ in range(plan.groups[group].count):
            things.append(Thing(plan.groups[group].kind, plan.groups[group].colour, group, uid=len(things)))
    return things


def place(backdrop: Scene, things: Sequence[Thing], rng: np.random.Generator) -> Scene:
    """Stand the things on the ground from left to right without overlap."""
    margin, gap = 0.03, 0.03
    unit = rng.uniform(0.62, 0.74)
    heights = np.array([KINDS[t.kind].height * unit * rng.uniform(0.92, 1.08) for t in things])
    widths = heights * [KINDS[t.kind].width for t in things]
    room = 1 - 2 * margin - gap * (len(things) - 1)
    fair = np.minimum(1, 1.2 * room / len(things) / widths)
    heights, widths = heights * fair, widths * fair
    if widths.sum() > room:
        shrink = room / widths.sum()
        heights, widths = heights * shrink, widths * shrink
    slack = rng.dirichlet(np.ones(len(things) + 1)) * (room - widths.sum())
    x, placed = margin, []
    for thing, height, width, space in zip(things, heights, widths, slack[:-1], strict=True):
        x += space
        low = max(backdrop.horizon + 0.12, height + 0.04)
        placed.append(
            replace(
                thing,
                x=float(x + width / 2),
                base=float(rng.uniform(low, max(low, 0.94))),
                height=float(height),
                tint=(float(rng.normal(0, 6)), float(rng.normal(0, 6)), float(rng.normal(0, 6))),
                word=str(rng.choice(WORDS)) if thing.kind == "sign" else "",
            )
        )
        x += width + gap
    return replace(backdrop, things=tuple(sorted(placed, key=lambda t: t.base)))
