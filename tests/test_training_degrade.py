import numpy as np
import pytest

from sdg import microworld
from sdg.training.degrade import DEGRADATIONS, degrade

RECORD = next(microworld.generate(1, seed=3, split="train"))


def difference(a, b):
    return np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).mean()


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_each_degradation_changes_the_picture_mildly_and_keeps_its_form(name):
    changes = []
    for seed in range(8):
        changed = DEGRADATIONS[name](RECORD.image, np.random.default_rng(seed))
        assert (changed.size, changed.mode) == (RECORD.image.size, "RGB")
        changes.append(difference(changed, RECORD.image))
    assert min(changes) > 0.05
    assert max(changes) < 12


def test_the_same_source_gives_the_same_picture_and_another_one_another():
    a, again, b = (degrade(RECORD.image, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert a.tobytes() == again.tobytes() != b.tobytes()


def test_pictures_of_any_form_come_back_in_their_size():
    for size in ((128, 64), (1, 7)):
        assert degrade(RECORD.image.resize(size), np.random.default_rng(0)).size == size
