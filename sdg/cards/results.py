"""Measured results as a card tells them: read from a file, as a table, as ``model-index`` and as ``.eval_results``."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdg.defects import TYPES

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK = "image-text-to-text"
TASK_NAME = "Structured defect grounding"

LABELS = {
    "det_type_f1": ("DetTypeF1", "f1"),
    "cln_acc": ("ClnAcc", "accuracy"),
    "box_precision": ("BoxPr", "precision"),
    "box_recall": ("BoxRe", "recall"),
    "box_f1": ("BoxF1", "f1"),
    "desc_cos": ("DescCos", "cosine_similarity"),
    "imp_acc": ("ImpAcc", "accuracy"),
}
"""By metric, the paper's name for it, and what the Hub files it under."""

ROWS = (
    "det_type_f1",
    "cln_acc",
    "box_precision@0.5",
    "box_recall@0.5",
    "box_f1@0.5",
    "box_f1@0.1",
    "desc_cos@0.1",
    "imp_acc@0.1",
)
"""The metrics that a card shows, for each type."""


@dataclass(frozen=True)
class Results:
    """One run of SDG-Eval, and where it comes from.

    Args:
        metrics: the flat dictionary of ``SDGEval.compute``; undefined ones are None or NaN.
        command: that printed it.
        code: commit or version of the library that ran, in words.
        data: what was measured on: ``world`` or ``name``, and perhaps ``split``, ``seed`` and ``n``.
    """

    metrics: Mapping[str, Any]
    command: str
    code: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured_on(self) -> str:
        """The data in words, such as ``"microworld, split test, seed 20000: 1,000 pictures"``."""
        name = self.data.get("world") or self.data.get("name") or "references of one's own"
        told = [str(name), *(f"{key} {self.data[key]}" for key in ("split", "seed") if key in self.data)]
        return f"{', '.join(told)}: {self.metrics['n_images']:,} pictures"

    @property
    def made_by(self) -> str:
        """Command and code in words."""
        return f"`{self.command}` ({self.code})"

    def value(self, key: str) -> float | None:
        """A metric; None where it is undefined or was not measured."""
        found = self.metrics.get(key)
        return None if found is None or math.isnan(found) else float(found)

    def table(self) -> str:
        """Both types side by side, with intervals where the file has them, in Markdown."""
        lines = [f"| metric | {' | '.join(TYPES)} |", "|---" * (len(TYPES) + 1) + "|"]
        for row in ROWS:
            cells = [self._cell(f"{kind}/{row}") for kind in TYPES]
            lines.append(f"| {label(row)} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _cell(self, key: str) -> str:
        value = self.value(key)
        if value is None:
            return "undefined"
        low, high = self.metrics.get(f"{key}/ci") or (None, None)
        interval = "" if low is None or math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        return f"{value:.3f}{interval}"

    def model_index(self, dataset: str | None = None) -> list[EvalResult]:
        """The metrics as entries of ``model-index``.

        Args:
            dataset: Hub id of the data set, where it has one.
        """
        from huggingface_hub import EvalResult

        world = str(self.data.get("world") or self.data.get("name") or "references")
        about = {key: self.data[key] for key in ("seed", "n") if key in self.data}
        source = {"command": self.command, "code": self.code}
        found = []
        for key in (f"{kind}/{row}" for kind in TYPES for row in ROWS):
            if (value := self.value(key)) is not None:
                found.append(
                    EvalResult(
                        task_type=TASK,
                        task_name=TASK_NAME,
                        dataset_type=dataset or world,
                        dataset_name=world,
                        dataset_split=self.data.get("split"),
                        dataset_args=about or None,
                        metric_type=LABELS[key.split("/")[1].split("@")[0]][1],
                        metric_name=label(key),
                        metric_value=round(value, 4),
                        metric_args=source,
                    )
                )
        return found


def label(key: str) -> str:
    """A metric's name in tables: ``"artifact/box_f1@0.5"`` is ``"artifact BoxF1@0.5"``."""
    kind, slash, metric = key.rpartition("/")
    name, at, threshold = metric.partition("@")
    return kind + (" " if slash else "") + LABELS[name][0] + at + threshold


def read_results(path: str | os.PathLike[str]) -> Results:
    """The results in a JSON file of ``sdg eval --json`` or of ``benchmarks/detector_quality.py``.

    Raises:
        OSError: where it cannot be opened.
        ValueError: for a file that is no such JSON, or does not say which command and which code made it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    found = content if isinstance(content, dict) else {}
    metrics = found.get("metrics") or (found.get("results") or {}).get("predictions")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("n_images"), int):
        raise ValueError(f"{path} holds no results of SDG-Eval: write them with sdg eval --json")
    lacking = [name for name in ("command",) if not found.get(name)]
    lacking += [] if found.get("commit") or found.get("version") else ["commit or version"]
    if lacking:
        raise ValueError(
            f"{path} names no {', no '.join(lacking)}, and a card says what its figures come from: measure again with "
            "this version"
        )
    version = found.get("version")
    code = f"commit {found['commit']}" if found.get("commit") else f"sdg {version}"
    return Results(metrics, str(found["command"]), code, found.get("data") or {})


def eval_results(entries: list[EvalResult], dataset: str) -> str:
    """Entries of ``model-index`` as a file of ``.eval_results/``, which the Hub shows beside a benchmark's own page.

    Args:
        entries: such as :meth:`Results.model_index` makes, or a card's head holds.
        dataset: Hub id of the data set that they were measured on.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    def notes(entry: EvalResult) -> str | None:
        args = entry.metric_args or {}
        return f"{entry.metric_name}: {args['command']} ({args['code']})" if "command" in args else entry.metric_name

    found = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=re.sub(r"\W+", "_", str(entry.metric_name)).lower(),
            value=entry.metric_value,
            notes=notes(entry),
        )
        for entry in entries
    ]
    return str(yaml_dump(eval_result_entries_to_yaml(found), sort_keys=False))
