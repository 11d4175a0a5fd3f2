"""The kinds of object, each made of named parts.

A kind lives in its own plane: x is 0 at its middle, y is 0 at its top and 1 where it stands; one unit is its height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdg.microworld.shapes import (
    Shape,
    capsule,
    circle,
    ellipse,
    lettering,
    polygon,
    rectangle,
    ring,
    strokes_of,
    union,
)

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (206, 44, 44),
    "orange": (240, 136, 28),
    "yellow": (242, 214, 50),
    "green": (46, 150, 62),
    "blue": (44, 88, 208),
    "purple": (136, 60, 176),
    "white": (240, 240, 236),
}
MATERIALS: dict[str, RGB] = {
    "wood": (112, 74, 42),
    "roof": (96, 52, 46),
    "glass": (176, 216, 232),
    "rubber": (36, 36, 40),
    "metal": (88, 92, 100),
    "skin": (232, 182, 146),
    "cloth": (52, 56, 84),
    "leaf": (54, 122, 44),
    "hollow": (62, 54, 52),
    "canvas": (226, 218, 196),
    "paint": (246, 246, 244),
    "ink": (30, 30, 34),
    "pollen": (122, 84, 30),
}
WORDS = ("STOP", "OPEN", "CAFE", "EXIT", "LAKE", "SALON", "PIANO", "TAXI", "NICE", "FLAT")


@dataclass(frozen=True)
class Part:
    """A named part: its shape, and what it is painted with (``main``: the object's own colour, or a material)."""

    name: str
    shape: Shape
    paint: str = "main"


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Args:
        name: singular noun.
        width: width over height.
        height: usual height beside other kinds; a house is 1.
        parts: back to front, for a word (only the sign uses it) and for light or dark lettering.
        removable: parts that may be lost, each with all that goes with it; never one that alone shows the main colour.
        extras: parts that may grow where none belong, with what a reason calls them.
    """

    name: str
    width: float
    height: float
    parts: Callable[[str, str], Sequence[Part]]
    removable: dict[str, tuple[str, ...]]
    extras: tuple[Part, ...]
    plural: str = ""


def _fixed(*parts: Part) -> Callable[[str, str], Sequence[Part]]:
    return lambda word, ink: parts


def _petals(cx: float, cy: float, r: float) -> Shape:
    around = ((0, -1), (0.87, -0.5), (0.87, 0.5), (0, 1), (-0.87, 0.5), (-0.87, -0.5))
    return union(*(circle(cx + x * r, cy + y * r, r * 0.62) for x, y in around))


def _sign(word: str, ink: str) -> Sequence[Part]:
    return (
        Part("post", rectangle(-0.06, 0.5, 0.06, 1), "wood"),
        Part("board", rectangle(-0.72, 0.06, 0.72, 0.58, 0.05)),
        Part("text", lettering(strokes_of(word), -0.64, 0.18, 0.64, 0.46), ink),
    )


_ALL = (
    Kind(
        "house",
        1.15,
        1.0,
        _fixed(
            Part("chimney", rectangle(0.24, 0.06, 0.38, 0.4), "metal"),
            Part("body", rectangle(-0.48, 0.42, 0.48, 1)),
            Part("roof", polygon((0, 0.04), (0.58, 0.45), (-0.58, 0.45)), "roof"),
            Part("door", rectangle(-0.11, 0.66, 0.11, 1), "wood"),
            Part("window", rectangle(0.19, 0.56, 0.38, 0.76), "glass"),
            Part("window", rectangle(-0.38, 0.56, -0.19, 0.76), "glass"),
        ),
        {"roof": ("roof",), "door": ("door",)},
        (Part("second door", rectangle(-0.12, 0.12, 0.1, 0.44), "glass"),),
    ),
    Kind(
        "car",
        1.9,
        0.55,
        _fixed(
            Part("cabin", polygon((-0.3, 0.08), (0.34, 0.08), (0.6, 0.5), (-0.56, 0.5))),
            Part("window", polygon((-0.24, 0.17), (0.28, 0.17), (0.44, 0.44), (-0.4, 0.44)), "glass"),
            Part("body", rectangle(-0.95, 0.44, 0.95, 0.84, 0.1)),
            Part("left wheel", circle(-0.52, 0.8, 0.2), "rubber"),
            Part("right wheel", circle(0.52, 0.8, 0.2), "rubber"),
            Part("left hub", circle(-0.52, 0.8, 0.08), "metal"),
            Part("right hub", circle(0.52, 0.8, 0.08), "metal"),
        ),
        {
            "left wheel": ("left wheel", "left hub"),
            "right wheel": ("right wheel", "right hub"),
            "cabin": ("cabin", "window"),
        },
        (
            Part("third wheel", circle(0, 0.8, 0.2), "rubber"),
            Part("second cabin", polygon((-0.95, 0.14), (-0.68, 0.14), (-0.6, 0.5), (-0.95, 0.5)), "main"),
        ),
    ),
    Kind(
        "person",
        0.72,
        0.95,
        _fixed(
            Part("left leg", capsule(-0.09, 0.64, -0.14, 0.93, 0.07), "cloth"),
            Part("right leg", capsule(0.09, 0.64, 0.14, 0.93, 0.07), "cloth"),
            Part("left arm", capsule(-0.18, 0.34, -0.3, 0.6, 0.06)),
            Part("right arm", capsule(0.18, 0.34, 0.3, 0.6, 0.06)),
            Part("torso", rectangle(-0.18, 0.27, 0.18, 0.68, 0.06)),
            Part("head", circle(0, 0.14, 0.14), "skin"),
        ),
        {name: (name,) for name in ("head", "left arm", "right arm", "left leg", "right leg")},
        (
            Part("third arm", capsule(0.16, 0.36, 0.42, 0.1, 0.06)),
            Part("third arm", capsule(-0.16, 0.36, -0.42, 0.1, 0.06)),
            Part("second head", circle(0.26, 0.14, 0.13), "skin"),
            Part("third leg", capsule(0.1, 0.66, 0.4, 0.9, 0.07), "cloth"),
        ),
        plural="people",
    ),
    Kind(
        "tree",
        0.86,
        1.15,
        _fixed(
            Part("trunk", rectangle(-0.08, 0.5, 0.08, 1), "wood"),
            Part("crown", union(circle(0, 0.24, 0.24), circle(-0.2, 0.42, 0.23), circle(0.2, 0.42, 0.23))),
        ),
        {"trunk": ("trunk",)},
        (
            Part("second trunk", capsule(0.04, 0.7, 0.36, 0.97, 0.05), "wood"),
            Part("second trunk", capsule(-0.04, 0.7, -0.36, 0.97, 0.05), "wood"),
        ),
    ),
    Kind(
        "boat",
        1.3,
        0.8,
        _fixed(
            Part("mast", rectangle(-0.03, 0.02, 0.03, 0.72), "wood"),
            Part("sail", polygon((0.05, 0.06), (0.52, 0.62), (0.05, 0.62)), "canvas"),
            Part("hull", polygon((-0.65, 0.68), (0.65, 0.68), (0.44, 1), (-0.44, 1))),
        ),
        {"sail": ("sail",)},
        (
            Part("second sail", polygon((-0.05, 0.06), (-0.05, 0.62), (-0.52, 0.62)), "canvas"),
            Part("second mast", rectangle(-0.46, 0.1, -0.38, 0.7), "wood"),
        ),
    ),
    Kind(
        "flower",
        0.62,
        0.7,
        _fixed(
            Part("stem", rectangle(-0.035, 0.4, 0.035, 1), "leaf"),
            Part("leaf", ellipse(0.16, 0.76, 0.15, 0.07), "leaf"),
            Part("bloom", _petals(0, 0.28, 0.17)),
            Part("centre", circle(0, 0.28, 0.1), "pollen"),
        ),
        {"stem": ("stem", "leaf")},
        (
            Part("second bloom", _petals(-0.2, 0.7, 0.11)),
            Part("second bloom", _petals(0.22, 0.58, 0.11)),
        ),
    ),
    Kind(
        "lamp",
        0.58,
        0.9,
        _fixed(
            Part("base", rectangle(-0.22, 0.9, 0.22, 1, 0.03), "metal"),
            Part("pole", rectangle(-0.035, 0.34, 0.035, 0.92), "metal"),
            Part("shade", polygon((-0.15, 0.04), (0.15, 0.04), (0.28, 0.4), (-0.28, 0.4))),
        ),
        {"pole": ("pole",)},
        (Part("second shade", polygon((-0.12, 0.52), (0.12, 0.52), (0.24, 0.78), (-0.24, 0.78))),),
    ),
    Kind(
        "cup",
        1.0,
        0.55,
        _fixed(
            Part("handle", ring(0.34, 0.52, 0.17, 0.09)),
            Part("body", polygon((-0.38, 0.16), (0.3, 0.16), (0.22, 1), (-0.3, 1))),
            Part("rim", ellipse(-0.04, 0.16, 0.33, 0.09), "hollow"),
        ),
        {"handle": ("handle",)},
        (Part("second handle", ring(-0.42, 0.52, 0.17, 0.09)),),
    ),
    Kind(
        "sign",
        1.46,
        0.8,
        _sign,
        {"post": ("post",)},
        (
            Part("second post", capsule(0.1, 0.56, 0.5, 0.97, 0.05), "wood"),
            Part("second post", capsule(-0.1, 0.56, -0.5, 0.97, 0.05), "wood"),
        ),
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}


def plural(kind: str) -> str:
    """Plural noun of a kind."""
    return KINDS[kind].plural or kind + "s"
