"""The metric as an object: what is read, matched and embedded, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdg.embedding import Embedder, EmbedderNotFound, load_embedder
from sdg.evaluation.compare import Difference, compare_counts
from sdg.evaluation.counts import ImageCounts, count_images
from sdg.evaluation.metrics import summarise
from sdg.evaluation.reading import Prediction, Reference, read_predictions, read_references
from sdg.matching import Method, check_method


class SDGEval:
    """SDG-Eval: detection, clean accuracy, boxes, reasons and importances of predicted defects.

    Predictions and references are matched one to one, per image and type, so that the total IoU is largest. That is
    the paper's definition; it can match fewer pairs above a threshold than matching for that threshold would.

    Args:
        embedder: what turns reasons into vectors, see :func:`sdg.embedding.load_embedder`: a name, a function, an
            object with ``.encode``, ``auto``, or None for no DescCos. Cosines of different embedders cannot be
            compared; the paper's numbers are of Qwen/Qwen3-Embedding-0.6B, mean-pooled.
        matching: ``hungarian`` (the paper) or ``greedy`` (its released evaluation code; depends on the order of boxes).
        ci: None, or the level of percentile bootstrap intervals over images, such as 0.95.
        iou_thresholds: IoU from which on a matched pair counts, for the box metrics.

    Raises:
        ValueError: naming the argument and its value.

    Example:
        >>> truth = [{"box": [0, 0, 500, 500], "type": "artifact", "reason": "two heads", "importance": 80}]
        >>> result = SDGEval(embedder=None).compute(predictions=[truth, []], references=[truth, truth])
        >>> result["artifact/box_precision@0.5"], result["artifact/box_recall@0.5"]
        (1.0, 0.5)
    """

    def __init__(
        self,
        embedder: Any = "auto",
        matching: Method = "hungarian",
        ci: float | None = None,
        iou_thresholds: Sequence[float] = (0.1, 0.5),
    ) -> None:
        check_method(matching)
        if ci is not None and not 0 < ci < 1:
            raise ValueError(f"ci={ci!r} is not a level between 0 and 1, such as 0.95")
        if not all(0 < tau <= 1 for tau in iou_thresholds):
            raise ValueError(f"iou_thresholds={tuple(iou_thresholds)!r} must lie above 0 and not above 1")
        self.matching: Method = matching
        self.ci = ci
        self.iou_thresholds = tuple(iou_thresholds)
        self.embedder: Embedder | None = None
        self._no_embedder = "no embedder was asked for (embedder=None)"
        try:
            self.embedder = None if embedder is None else load_embedder(embedder)
        except EmbedderNotFound as error:
            self._no_embedder = str(error)

    def compute(self, *, predictions: Iterable[Prediction], references: Iterable[Reference]) -> dict[str, Any]:
        """Score predictions against references, one of each per image, in the same order.

        Args:
            predictions: per image a DefectSet, a list of defects or of their dictionaries (``box, type, reason,
                importance``), or a model's response. A response that cannot be read, and a set with a ``parse_error``,
                is an empty prediction that lowers ``parse_rate``.
            references: per image a DefectSet or a list, as above.

        Returns:
            For t in ``artifact``, ``misalignment``: ``t/det_type_f1``, ``t/cln_acc``, ``t/box_precision@tau``,
            ``t/box_recall@tau``, ``t/box_f1@tau``, ``t/desc_cos@0.1`` (in -1..1, over matched pairs where both sides
            have a reason), ``t/imp_acc@0.1`` (over matched pairs where both have an importance). ``parse_rate``, the
            share that can be read, and ``strict_rate``, the share that passes the reward's format gate (a set without
            its ``raw`` text passes when it could be read). All in 0..1; NaN where the denominator is empty.
            ``n_images``; ``embedder``, its name, or None and then ``desc_cos_note`` says why. With ``ci``,
            ``KEY/ci`` = [low, high] for each metric, over the resamples on which it is defined.

        Raises:
            ValueError: naming the image, the defect, the field and the value; for lists of unequal length.
        """
        return summarise(self.count(predictions=predictions, references=references), self.ci)

    def compare(
        self, *, predictions: Iterable[Prediction], against: Iterable[Prediction], references: Iterable[Reference]
    ) -> dict[str, Difference]:
        """Compare two sets of predictions of the same images; see :func:`sdg.evaluation.compare_counts`.

        Args:
            predictions: as for :meth:`compute`.
            against: other predictions, in the same order.
            references: as for :meth:`compute`.

        Returns:
            By metric, its two values, their difference with its interval (of level ``ci``, 0.95 where that is None),
            and a p-value.

        Raises:
            ValueError: as :meth:`compute`.
        """
        tables = self.count_each({"predictions": predictions, "against": against}, references)
        return compare_counts(tables["predictions"], tables["against"], self.ci or 0.95)

    def count(self, *, predictions: Iterable[Prediction], references: Iterable[Reference]) -> ImageCounts:
        """The table of counts by image that :meth:`compute` summarises, for break-downs, comparisons and plots.

        Args:
            predictions: as for :meth:`compute`.
            references: as for :meth:`compute`.

        Raises:
            ValueError: as :meth:`compute`.
        """
        return self.count_each({"predictions": predictions}, references)["predictions"]

    def count_each(
        self, predictions: Mapping[str, Iterable[Prediction]], references: Iterable[Reference]
    ) -> dict[str, ImageCounts]:
        """One table of counts for each of several sets of predictions of the same images.

        All are matched and embedded together, so that a reason is embedded once however many sets meet it.

        Args:
            predictions: by name, as for :meth:`compute`; errors call them by their name.
            references: as for :meth:`compute`.

        Raises:
            ValueError: as :meth:`compute`.
        """
        read = {name: read_predictions(entries, name) for name, entries in predictions.items()}
        true = read_references(references)
        for name, answers in read.items():
            if len(answers.rows) != len(true):
                raise ValueError(
                    f"{name} has {len(answers.rows)} entries, references have {len(true)}: one of each per image is "
                    "needed (an empty list where there is no defect)"
                )
        return count_images(read, true, self.iou_thresholds, self.matching, self.embedder, self._no_embedder)
