"""Which model a page serves, what that model was made for, and what a visitor must be told about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from sdg.detector import FULL_MODEL

WORLDS = {"microworld": "the microworld, little synthetic pictures like the examples"}
"""How a visitor is told of a world that checkpoints name in a word."""

SIZE = " (4 billion parameters: a download once, and a GPU to be quick)"


@dataclass(frozen=True)
class Served:
    """What the head of the page says.

    Args:
        name: the model as a visitor would look for it.
        made_for: the pictures that it was trained on, in one sentence.
        notice: what limits the answers on other pictures, with the way out; None where nothing is known.
    """

    name: str
    made_for: str
    notice: str | None = None


def describe(name: str, made_for: str | None = None, offered: bool = False) -> Served:
    """What the page says of a checkpoint.

    Args:
        name: an embedded one's name, a local folder or a Hub id.
        made_for: the world that it was trained on, in words; None for pictures of any kind.
        offered: visitors may choose :data:`~sdg.detector.FULL_MODEL` on this page.
    """
    shown = PurePath(name).name if PurePath(name).is_absolute() else name
    if made_for is None:
        return Served(shown, "Made for pictures from text-to-image generators.")
    world = WORLDS.get(made_for, made_for)
    way_out = f"choose `{FULL_MODEL}` above." if offered else f"start the page with `SDG_MODEL={FULL_MODEL}`{SIZE}."
    return Served(
        shown,
        f"Made for {world}.",
        f"This page serves a small model that knows only {world}. Photographs and pictures from real generators lie "
        f"outside its world, and what it says about them means nothing. For those, {way_out}",
    )
