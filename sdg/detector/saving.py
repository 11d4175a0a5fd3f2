"""The part of the detector that writes a checkpoint, here or on the Hub."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from sdg.boxes import BoxOrder
from sdg.calibration.trust import Trust
from sdg.cards import CARD, RECIPE_FILE, About, write_card
from sdg.engines.base import SETTINGS_FILE, Engine
from sdg.prompts import Prompt
from sdg.upload import check_folder, upload


class Saves:
    """What :class:`~sdg.detector.SDGDetector` saves: weights, processor, prompt and settings, calibration and world."""

    engine: Engine
    prompt: Prompt
    box_order: BoxOrder
    made_for: str | None
    trust: Trust
    _settings: dict[str, Any]
    _folder: Path | None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the checkpoint as a plain transformers folder, with the prompt and settings beside it.

        Raises:
            ValueError: where the model is not in this process, or its weights cannot be written as one checkpoint.
        """
        save = getattr(self.engine, "save_pretrained", None)
        if save is None:
            raise ValueError(f"{self.engine.name} is not in this process: there are no weights to save")
        save(folder)
        settings = self._settings | {
            "prompt": self.prompt.template,
            "prompt_without_caption": self.prompt.template_without_caption,
            "box_order": self.box_order,
            "max_new_tokens": getattr(self.engine, "max_new_tokens", None),
            "made_for": self.made_for,
        }
        text = json.dumps({k: v for k, v in settings.items() if v is not None}, indent=2, ensure_ascii=False)
        Path(folder, SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")
        self.trust.save(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        card: str | os.PathLike[str] | None = None,
        about: About | None = None,
    ) -> str:
        """Upload the checkpoint to a model repository of the Hub, in one commit, if it passes :mod:`sdg.upload`.

        Args:
            repo_id: ``"owner/name"``; made where it does not exist.
            private: of a new repository; None is the account's default.
            token: access token; None takes the one of ``hf auth login``.
            card: file with the model's card; None is that of the checkpoint, unless an adapter made another of it.
            about: license, base model and measured results, of which a card is made where there is none; and the data
                sets that it was trained and measured on.

        Returns:
            The address of the commit.

        Raises:
            ValueError: ``RefusedError``, naming what must not be uploaded, or what the card lacks; and as
                :func:`sdg.cards.card_files`.
            OSError: ``UploadError``, saying what the Hub said and what to do.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            for name in (CARD, RECIPE_FILE):
                if self._folder is not None and Path(self._folder, name).is_file():
                    shutil.copyfile(Path(self._folder, name), Path(folder, name))
            if card is not None:
                shutil.copyfile(card, Path(folder, CARD))
            write_card(folder, folder, "detector", repo_id, about)
            files = check_folder(folder, "model")
            return upload(files, repo_id, "model", message="Upload SDG detector", private=private, token=token).commit
