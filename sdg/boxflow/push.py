"""Uploading what a trainer made: the adapter or the transformer, never its optimizer and its pickled arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdg.upload import check_folder, upload


class PushesWhatIsLoaded:
    """The part of the trainer that uploads: for a class whose ``save_model`` writes lora/ or transformer/."""

    args: Any

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **_: Any,
    ) -> str | None:
        """Upload what others load, ``OUTPUT_DIR/lora`` or ``OUTPUT_DIR/transformer``, if it passes :mod:`sdg.upload`.

        Its card is the folder's ``README.md``, which has to name license and base model. transformers' own upload
        would take the whole folder, with the pickled arguments in it.

        Args:
            commit_message: of the commit.
            blocking: transformers' own; this upload always is waited for.
            token: as in :func:`sdg.upload.upload`; None is ``hub_token``.
            revision: as in :func:`sdg.upload.upload`; None is ``hub_revision``.
            private: as in :func:`sdg.upload.upload`; None is ``hub_private_repo``.

        Returns:
            The address of the commit; None in processes other than the first.

        Raises:
            RefusedError: naming what must not be uploaded, or what the card lacks.
            UploadError: saying what the Hub said and what to do.
        """
        self.save_model()  # type: ignore[attr-defined]
        if not self.args.should_save:
            return None
        folder = Path(self.args.output_dir)
        lora = (folder / "lora").is_dir()
        files = check_folder(folder / ("lora" if lora else "transformer"), "adapter" if lora else "model")
        return upload(
            files,
            self.args.hub_model_id or folder.name,
            "adapter" if lora else "model",
            message=commit_message or "End of training",
            private=self.args.hub_private_repo if private is None else private,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
        ).commit
