"""Pictures that went through a generator: which did, by how much, and that their labels stay."""

import numpy as np
import pytest
import tiny_pipelines
import torch

from sdg import microworld
from sdg.training.redraw import redraw, redraw_records


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipelines.microworld()


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_redrawing_keeps_the_size_and_repeats_with_its_seed(pipeline, strength):
    images = [r.image for r in microworld.generate(2, seed=1, split="train")]
    captions = ["a red car", "two green trees"]
    first, second = (
        redraw(pipeline, images, captions, strength, torch.Generator().manual_seed(3), 4) for _ in range(2)
    )
    assert [image.size for image in first] == [(128, 128)] * 2
    assert [image.tobytes() for image in first] == [image.tobytes() for image in second]
    assert first[0].tobytes() != images[0].tobytes()


def test_records_are_redrawn_batch_by_batch(pipeline):
    drawn = list(microworld.generate(12, seed=0, split="train"))
    once, again = (list(redraw_records(drawn, pipeline, np.random.default_rng(5), 0.5, batch=2)) for _ in range(2))
    assert [r.defects for r in once] == [r.defects for r in drawn]
    assert [r.image.tobytes() for r in once] == [r.image.tobytes() for r in again]
    changed = [a.image.tobytes() != b.image.tobytes() for a, b in zip(once, drawn, strict=True)]
    assert changed == ["redrawn" in r.provenance for r in once]
    assert 0 < sum(changed) < 12
    assert changed[::2] == changed[1::2]
    assert all(0 <= r.provenance.get("redrawn", 0) <= 0.4 for r in once)


def test_less_than_a_step_of_noise_is_recorded_as_none(pipeline):
    drawn = list(microworld.generate(6, seed=0, split="train"))
    through = list(redraw_records(drawn, pipeline, np.random.default_rng(5), most=0.04, noisy=1.0, batch=2))
    assert {r.provenance["redrawn"] for r in through} == {0}
