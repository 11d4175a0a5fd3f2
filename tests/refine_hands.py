"""An eye and a hand for tests of refinement: the eye sees red in two places, the hand does what a test says."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from sdg import Defect, DefectSet

GREY, RED = (128, 128, 128), (200, 30, 30)
LEFT, RIGHT = (100, 100, 300, 300), (600, 600, 900, 900)


def picture(*red, size=(100, 100)):
    """Grey, with the given boxes painted red: those are its artifacts."""
    pixels = np.full((size[1], size[0], 3), GREY, np.uint8)
    for x0, y0, x1, y1 in red:
        pixels[y0 * size[1] // 1000 : y1 * size[1] // 1000, x0 * size[0] // 1000 : x1 * size[0] // 1000] = RED
    return Image.fromarray(pixels)


class Eye:
    """Sees red in either box; of one picture, or of a list."""

    made_for = None
    engine = SimpleNamespace(name="eye")

    def __init__(self, importance=50, confidence=None, info=None):
        self.importance, self.confidence, self.info = importance, confidence, info or {}

    def __call__(self, images, captions=None, *, batch_size=8):
        return [self.one(image) for image in images] if isinstance(images, list) else self.one(images)

    def one(self, image):
        pixels = np.asarray(image).astype(int)
        h, w = pixels.shape[:2]
        found = []
        for x0, y0, x1, y1 in (LEFT, RIGHT):
            part = pixels[y0 * h // 1000 : y1 * h // 1000, x0 * w // 1000 : x1 * w // 1000]
            if part.size and (np.abs(part - RED).sum(-1) < 30).mean() > 0.5:
                found.append(Defect((x0, y0, x1, y1), "artifact", "red", self.importance, confidence=self.confidence))
        return DefectSet(tuple(found), info=self.info)


def mend(task, seed=0):
    """Grey wherever the mask is."""
    pixels = np.asarray(task.image).copy()
    pixels[np.asarray(task.mask) > 0 if task.mask else slice(None)] = GREY
    return Image.fromarray(pixels)


class Hand:
    """Calls a function on the task for each seed."""

    name = "hand"

    def __init__(self, act=mend, local=True):
        self.act, self.local, self.tasks = act, local, []

    def __call__(self, task, seeds):
        self.tasks.append(task)
        return [self.act(task, seed) for seed in seeds]
