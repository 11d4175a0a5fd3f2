"""SDG-Eval (section 3.2, App. C): how well predicted defects agree with the true ones, each type for itself.

Every metric is a ratio of sums over images. So the images are reduced to a table of counts first; a metric, its spread
over resampled images, a break-down or a comparison is then arithmetic on sums of the table's rows.
"""

from sdg.evaluation.breakdown import by_column, by_subtype, by_tier
from sdg.evaluation.compare import Difference, compare_counts
from sdg.evaluation.counts import TEXT_IOU, ImageCounts
from sdg.evaluation.metrics import RESAMPLES, image_level, summarise
from sdg.evaluation.published import TABLE_2, TABLE_3
from sdg.evaluation.reading import Prediction, Reference
from sdg.evaluation.report import Report, to_json
from sdg.evaluation.sdg_eval import SDGEval
from sdg.evaluation.worst import ImageErrors, worst_images

__all__ = [
    "RESAMPLES",
    "TABLE_2",
    "TABLE_3",
    "TEXT_IOU",
    "Difference",
    "ImageCounts",
    "ImageErrors",
    "Prediction",
    "Reference",
    "Report",
    "SDGEval",
    "by_column",
    "by_subtype",
    "by_tier",
    "compare_counts",
    "image_level",
    "summarise",
    "to_json",
    "worst_images",
]
