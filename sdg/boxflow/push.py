"""Uploading what a trainer made: the adapter or the transformer, never its optimizer and its pickled arguments."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from sdg.cards import About, write_card, write_recipe
from sdg.upload import Kind, check_folder, upload


class PushesWhatIsLoaded:
    """The part of the trainer that uploads: for a class whose ``save_model`` writes lora/ or transformer/."""

    args: Any
    detector: Any
    policy: Any
    reward_func_names: Any

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        about: About | None = None,
        **_: Any,
    ) -> str | None:
        """Upload what others load, ``OUTPUT_DIR/lora`` or ``OUTPUT_DIR/transformer``, if it passes :mod:`sdg.upload`.

        Its card is the folder's ``README.md``; where there is none it is made of what is known, given a license.
        transformers' own upload would take the whole folder, with the pickled arguments in it.

        Args:
            commit_message: of the commit.
            blocking: transformers' own; this upload always is waited for.
            token: as in :func:`sdg.upload.upload`; None is ``hub_token``.
            revision: as in :func:`sdg.upload.upload`; None is ``hub_revision``.
            private: as in :func:`sdg.upload.upload`; None is ``hub_private_repo``.
            about: license, measured results and what else goes into a card that is made.

        Returns:
            The address of the commit; None in processes other than the first.

        Raises:
            RefusedError: naming what must not be uploaded, or what the card lacks.
            UploadError: saying what the Hub said and what to do.
        """
        self.save_model()  # type: ignore[attr-defined]
        if not self.args.should_save:
            return None
        lora = Path(self.args.output_dir, "lora").is_dir()
        folder = Path(self.args.output_dir, "lora" if lora else "transformer")
        repo_id = self.args.hub_model_id or Path(self.args.output_dir).name
        kind: Kind = "adapter" if lora else "model"
        with tempfile.TemporaryDirectory() as beside:
            write_card(folder, beside, "lora" if lora else "generator", repo_id, about)
            return upload(
                check_folder(folder, kind, beside=beside),
                repo_id,
                kind,
                message=commit_message or "End of training",
                private=self.args.hub_private_repo if private is None else private,
                token=token or self.args.hub_token,
                revision=revision or self.args.hub_revision,
            ).commit

    def _write_recipe(self, folder: Path) -> None:
        """Say beside the weights how they were trained."""
        where = next((folder / name for name in ("lora", "transformer") if (folder / name).is_dir()), None)
        if where is not None:
            judges = {"rewards": list(self.reward_func_names)}
            if self.detector is not None:
                judges["detector"] = [str(getattr(getattr(self.detector, "engine", None), "name", "one of its own"))]
            base = self.policy.pipeline.config.get("_name_or_path") or None
            write_recipe(where, "BoxFlow-GRPO", self.args, base_model=base, more=judges)
