"""Uploading a detector: what saving writes, with its card and its recipe."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdg.cards import CARD, RECIPE_FILE, About, write_card
from sdg.upload import check_folder, upload


class PushesCheckpoint:
    """The part of a detector that uploads: for a class that has ``save_pretrained``."""

    save_pretrained: Callable[[Any], None]
    _beside: Callable[[str], Path | None]
    """Where a file of the checkpoint lies that saving does not write; None where it has none."""

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
            found = {name: self._beside(name) for name in (CARD, RECIPE_FILE)}
            if card is not None:
                found[CARD] = Path(card)
            for name, path in found.items():
                if path is not None:
                    shutil.copyfile(path, Path(folder, name))
            write_card(folder, folder, "detector", repo_id, about)
            files = check_folder(folder, "model")
            return upload(files, repo_id, "model", message="Upload SDG detector", private=private, token=token).commit
