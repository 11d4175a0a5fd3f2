"""Uploading from a trainer: what others load, through the same checks."""

from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from local_hub import LocalHub
from safetensors.numpy import save_file

from sdg.boxflow.push import PushesWhatIsLoaded
from sdg.boxflow.trainer import BoxFlowGRPOTrainer
from sdg.cards import About
from sdg.upload import RefusedError

CARD = "---\nlicense: mit\nbase_model: org/base\n---\n"


class Saved(PushesWhatIsLoaded):
    """A trainer of which only the end is left."""

    def __init__(self, folder, made, card=CARD, first=True):
        self.folder, self.made, self.card = folder, made, card
        names = {"hub_model_id": "me/aligned", "hub_private_repo": True, "hub_token": None, "hub_revision": None}
        self.args = SimpleNamespace(output_dir=str(folder), should_save=first, **names)

    def save_model(self):
        (self.folder / self.made).mkdir(parents=True, exist_ok=True)
        save_file({"w": np.zeros(4, np.float32)}, self.folder / self.made / "adapter_model.safetensors")
        (self.folder / "training_args.bin").write_bytes(b"a pickle")
        if self.card:
            (self.folder / self.made / "README.md").write_text(self.card)


@pytest.mark.parametrize("made", ["lora", "transformer"])
def test_what_others_load_is_uploaded_and_nothing_else(made, tmp_path, monkeypatch):
    with LocalHub() as hub, hub.here(monkeypatch):
        address = Saved(tmp_path, made).push_to_hub("Aligned", True)
    repo = hub.repos["model", "me/aligned"]
    assert set(repo.files()) == {".gitattributes", "README.md", "adapter_model.safetensors"}
    assert repo.private
    assert repo.titles[address.rsplit("/", 1)[1]] == "Aligned"


def test_a_card_is_made_of_what_the_trainer_knows(tmp_path, monkeypatch):
    trainer = Saved(tmp_path, "lora", card=None)
    trainer.reward_func_names, trainer.detector = ["PickScore"], None
    trainer.args.beta, trainer.args.sde_window = 0.04, [1, 4]
    trainer.policy = SimpleNamespace(pipeline=SimpleNamespace(config={"_name_or_path": "org/flux"}))
    with LocalHub() as hub, hub.here(monkeypatch):
        with pytest.raises(RefusedError, match="the card, is missing"):
            trainer.push_to_hub()
        trainer._write_recipe(tmp_path)
        trainer.push_to_hub(about=About("mit"))
    files = hub.repos["model", "me/aligned"].files()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.license) == ("org/flux", "mit")
    assert "| `beta` | 0.04 |" in card.text
    assert "| `rewards` | PickScore |" in card.text
    assert not (tmp_path / "lora" / "README.md").exists()


def test_without_a_card_it_is_refused_and_other_processes_upload_nothing(tmp_path, monkeypatch):
    with LocalHub() as hub, hub.here(monkeypatch):
        with pytest.raises(RefusedError, match="the card, is missing"):
            Saved(tmp_path / "a", "lora", card=None).push_to_hub()
        assert Saved(tmp_path / "b", "lora", first=False).push_to_hub() is None
    assert not hub.requests


def test_the_trainer_uploads_that_way():
    assert BoxFlowGRPOTrainer.push_to_hub is PushesWhatIsLoaded.push_to_hub
