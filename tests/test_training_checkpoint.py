"""Folders on disk: what a user loads, and what a killed run resumes from."""

import json

import pytest
import torch
from safetensors.torch import load_file
from standins import build, picture

from sdg.detector import SDGDetector
from sdg.prompts import Prompt
from sdg.training.checkpoint import last_complete_checkpoint, save_detector

PROMPT = Prompt("caption: {caption}", "no caption")


def test_saved_weights_are_halves_and_the_detector_knows_its_prompt(tmp_path):
    model, processor = build()
    for _ in range(2):  # the second save replaces the first
        save_detector(model, processor, tmp_path / "best", prompt=PROMPT, max_new_tokens=5, made_for="microworld")
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    weights = load_file(tmp_path / "best" / "model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights  # tied to the embedding
    detector = SDGDetector.from_pretrained(tmp_path / "best")
    assert detector.prompt == PROMPT
    assert detector.made_for == "microworld"
    assert detector(picture(), "a red car").info["new_tokens"] <= 5


def test_training_goes_on_in_full_precision_after_saving(tmp_path):
    model, processor = build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    save_detector(model, processor, tmp_path / "best", prompt=PROMPT, max_new_tokens=5)
    assert all(torch.equal(v, before[k]) and v.dtype == torch.float32 for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        ({}, None),
        ({5: {"global_step": 5}}, 5),
        ({5: {"global_step": 5}, 10: {"global_step": 10}}, 10),
        ({9: {"global_step": 9}, 10: {"global_step": 10}, 11: None}, 10),
        ({5: {"global_step": 5}, 10: "{cut"}, 5),
        ({5: {"global_step": 4}}, None),
    ],
)
def test_the_last_checkpoint_written_to_its_end(tmp_path, states, chosen):
    for step, state in states.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            text = state if isinstance(state, str) else json.dumps(state)
            (folder / "trainer_state.json").write_text(text)
    found = last_complete_checkpoint(tmp_path)
    assert found == (None if chosen is None else str(tmp_path / f"checkpoint-{chosen}"))
