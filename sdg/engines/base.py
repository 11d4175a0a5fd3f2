"""What the detector asks of whatever produces text: a batch of pictures and instructions in, texts out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sdg.calibration.evidence import Evidence
from sdg.hub import HubError

if TYPE_CHECKING:
    from PIL import Image

SETTINGS_FILE = "sdg_config.json"
"""What a checkpoint says about itself, beside its weights: ``prompt``, ``prompt_without_caption``, ``box_order``,
``max_new_tokens``, ``made_for``, ``bf16_differs``."""

MAX_NEW_TOKENS = 4096
"""Room for a think text and a long list where the checkpoint names no limit of its own (App. D)."""


class CheckpointError(HubError):
    """A checkpoint that could not be loaded; the message says what was tried and what to do."""


class EndpointError(ConnectionError):
    """A server that answers no picture at all; the message names it, the model and the way out, never the key."""


@dataclass(frozen=True)
class Generation:
    """One answer of a model.

    Args:
        text: the whole answer, without padding and end marks.
        prompt_tokens: length of the prompt, picture included, in tokens; None where the engine cannot know.
        new_tokens: length of the answer in tokens; None where the engine cannot know.
        seconds: wall-clock time of the batch that the answer came in, divided by its size.
        finished: False where the answer was cut off at the limit of new tokens.
        error: why the model gave no answer, or not all of it; None where it gave one.
        evidence: how sure the model was of each token, and what it saw; None where the engine cannot know.
    """

    text: str
    prompt_tokens: int | None
    new_tokens: int | None
    seconds: float
    finished: bool
    error: str | None = None
    evidence: Evidence | None = field(default=None, compare=False, repr=False)


class Engine(Protocol):
    """A source of text. ``name`` is the model's name as results report it.

    One that answers many requests at a time also has ``submit(image, prompt)``, which gives a future of one
    :class:`Generation` at once, and ``concurrency``, how many it works on: no request then waits for a batch to end.
    """

    name: str

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Generation]:
        """Answer a batch: one RGB picture and one instruction each; as many answers, in the same order."""
        ...

    def stream(self, image: Image.Image, prompt: str) -> Generator[str, None, Generation]:
        """Answer one picture piece by piece; the pieces joined are the text of the answer that it returns."""
        ...
