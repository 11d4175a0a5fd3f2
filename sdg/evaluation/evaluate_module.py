"""SDG-Eval for `evaluate`: where generated pictures fail, judged against the truth.

evaluate copies this file elsewhere and runs it there, so it stands alone; all that it does is done by `sdg`.
"""

import importlib
from typing import Any

import datasets
import evaluate

DESCRIPTION = """\
SDG-Eval scores predicted defects of generated pictures against the true ones. Per type (artifact, misalignment): is a
defect of that type there (det_type_f1), are clean pictures left alone (cln_acc), are the boxes right (box_precision,
box_recall, box_f1 at IoU 0.1 and 0.5, matched one to one), do the reasons say the same (desc_cos), do the importances
agree (imp_acc). Undefined metrics are NaN.
"""

INPUTS = """\
Args:
    predictions: one an image, all in one of two forms:
        a list of records, each {"box": [x0, y0, x1, y1], "type": "artifact" or "misalignment", "reason": str,
        "importance": 1..100 or None}, boxes on a grid of 0..1000 (1000 is the full width or height);
        or the detector's response, a string. One that cannot be read counts as no prediction and lowers parse_rate.
    references: one an image, lists of such records; an empty list is a clean picture.
    **options: embedder ("auto", a sentence-transformers name, or None for no desc_cos), matching ("hungarian" or
        "greedy"), ci (such as 0.95, for bootstrap intervals) and iou_thresholds, of sdg.SDGEval.

Returns:
    a flat dictionary: "artifact/box_f1@0.5" and so on, "parse_rate", "strict_rate", "n_images", "embedder".

Example:
    >>> metric = evaluate.load("sdg_eval")
    >>> truth = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
    >>> result = metric.compute(predictions=[truth, []], references=[truth, truth], embedder=None)
    >>> result["artifact/box_precision@0.5"], result["artifact/box_recall@0.5"]
    (1.0, 0.5)
"""

CITATION = """\
@article{structured_defect_grounding,
  title = {Structured Defect Grounding for text-to-image models},
  journal = {arXiv preprint arXiv:2606.06113},
  year = {2026}
}
"""

FIELDS = ("box", "type", "reason", "importance")

UNREADABLE = "parse_error"
"""Type of the one record, without a box, as which a prediction that could not be read travels: never as a clean one."""


def _records() -> list[dict[str, Any]]:
    # Boxes and importances are float64: whole numbers stay whole, others reach sdg as they are, to be refused by name.
    number = datasets.Value("float64")
    text = datasets.Value("string")
    return [{"box": datasets.Sequence(number), "type": text, "reason": text, "importance": number}]


def _plain(where: str, value: Any) -> Any:
    """A record as the features want it, or a sentence: evaluate's own errors name neither image nor field."""
    if isinstance(value, str):
        return value
    if hasattr(value, "defects"):
        if getattr(value, "parse_error", None) is not None:
            return [{"box": [], "type": UNREADABLE, "reason": str(value.parse_error), "importance": None}]
        value = value.defects
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}={value!r:.80} is neither a list of records nor a response string")
    records = []
    for index, record in enumerate(value):
        fields = {name: getattr(record, name, None) for name in FIELDS} if hasattr(record, "box") else record
        if not isinstance(fields, dict):
            raise ValueError(f"{where}, defect {index}: {record!r:.80} is not a record of {', '.join(FIELDS)}")
        if missing := [name for name in ("box", "type") if fields.get(name) is None]:
            raise ValueError(
                f"{where}, defect {index}: {missing[0]} is missing; a record has {', '.join(FIELDS)}, "
                f"this one has {', '.join(map(str, fields)) or 'nothing'}"
            )
        box, kind = fields["box"], getattr(fields["type"], "value", fields["type"])
        try:
            numbers = [_number(c) for c in box]
            importance = None if fields.get("importance") is None else _number(fields["importance"])
        except (TypeError, ValueError):
            raise ValueError(
                f"{where}, defect {index}: box={box!r} and importance={fields.get('importance')!r} must be numbers"
            ) from None
        reason = fields.get("reason") or ""
        if not isinstance(kind, str) or not isinstance(reason, str):
            raise ValueError(f"{where}, defect {index}: type={kind!r} and reason={reason!r:.80} must be text")
        records.append({"box": numbers, "type": kind, "reason": reason, "importance": importance})
    return records


def _number(value: Any) -> float:
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _reference(where: str, value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"{where} is text: a reference is a list of records")
    records = _plain(where, value)
    if (unreadable := _unreadable(records)) is not None:
        raise ValueError(f"{where} could not be read ({unreadable}): that is not the same as no defect")
    return records


def _unreadable(records: Any) -> str | None:
    """Why the prediction could not be read, where these are the record that says so."""
    if len(records) == 1 and records[0]["type"] == UNREADABLE and not len(records[0]["box"]):
        return str(records[0]["reason"])
    return None


def _whole(value: Any) -> Any:
    return int(value) if value is not None and float(value).is_integer() else value


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class SDGEvalModule(evaluate.Metric):
    """SDG-Eval as a metric of evaluate."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=[
                datasets.Features({"predictions": _records(), "references": _records()}),
                datasets.Features({"predictions": datasets.Value("string"), "references": _records()}),
            ],
            reference_urls=["https://arxiv.org/abs/2606.06113"],
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one image: its prediction and its reference."""
        prediction = _plain(f"predictions[{len(self)}]", prediction)
        reference = _reference(f"references[{len(self)}]", reference)
        self._one_form([prediction])
        super().add(prediction=prediction, reference=reference, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add several images."""
        predictions, references = self._checked(predictions, references)
        if predictions:
            super().add_batch(predictions=predictions, references=references, **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Score what was added, or the two lists."""
        if (predictions is None) != (references is None):
            raise ValueError("predictions and references are needed, one of each an image")
        if predictions is None:
            return super().compute(**kwargs)
        predictions, references = self._checked(predictions, references)
        if not predictions:  # of which evaluate cannot make a table
            added = self.writer is not None
            return super().compute(**kwargs) if added else self._compute(predictions=[], references=[], **kwargs)
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _checked(self, predictions: Any, references: Any) -> tuple[list[Any], list[Any]]:
        predictions, references = list(predictions or []), list(references or [])
        if len(predictions) != len(references):
            raise ValueError(
                f"predictions has {len(predictions)} entries, references have {len(references)}: one of each per image "
                "is needed (an empty list where there is no defect)"
            )
        plain = [_plain(f"predictions[{k}]", entry) for k, entry in enumerate(predictions)]
        self._one_form(plain)
        return plain, [_reference(f"references[{k}]", entry) for k, entry in enumerate(references)]

    def _one_form(self, predictions: list[Any]) -> None:
        forms = {isinstance(entry, str) for entry in predictions}
        if self.writer is not None:
            forms.add(isinstance(self.selected_feature_format["predictions"], datasets.Value))
        if len(forms) > 1:
            raise ValueError("predictions mix response strings and lists of records; give all in one form")

    def _compute(self, *, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        try:
            # By name: evaluate reads import statements and would offer to install another package called sdg.
            library = importlib.import_module("sdg")
        except ImportError as error:
            raise ImportError(f"this metric runs on sdg: pip install sdg-t2i ({error})") from error

        def entry(value: Any) -> Any:
            if isinstance(value, str):
                return value
            if (unreadable := _unreadable(value)) is not None:
                return library.DefectSet((), parse_error=unreadable)
            return [
                {
                    "box": [_whole(c) for c in record["box"]],
                    "type": record["type"],
                    "reason": record["reason"] or "",
                    "importance": _whole(record["importance"]),
                }
                for record in value
            ]

        metric = library.SDGEval(**options)
        result: dict[str, Any] = metric.compute(
            predictions=[entry(value) for value in predictions], references=[entry(value) for value in references]
        )
        return result
