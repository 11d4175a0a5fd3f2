import numpy as np
import pytest

from sdg.defects import Defect, DefectSet
from sdg.evaluation.order import look_transposed, transposed_pairs

RANDOM = np.random.default_rng(0)
CORNERS = RANDOM.integers(0, 600, (40, 2))
SIZES = RANDOM.integers(50, 400, (40, 2))
TRUTH = [DefectSet((Defect((*c, *(c + s)), "artifact"),)) for c, s in zip(CORNERS, SIZES, strict=True)]
TRANSPOSED = [DefectSet(tuple(Defect(np.array(d.box)[[1, 0, 3, 2]], d.type) for d in s)) for s in TRUTH]
ELSEWHERE = [DefectSet((Defect((0, 0, 5, 5), "artifact"),))] * 40
FAILED = [DefectSet(s.defects, parse_error="cut off") for s in TRANSPOSED]


@pytest.mark.parametrize(
    ("predictions", "suspicious"),
    [
        (TRUTH, False),
        (TRANSPOSED, True),
        (ELSEWHERE, False),
        (FAILED, False),
        (TRANSPOSED[:4] + ELSEWHERE[4:], False),
        (TRUTH[:20] + TRANSPOSED[20:], False),
        (TRANSPOSED[:12] + ELSEWHERE[12:], True),
    ],
    ids=["right", "transposed", "wrong anyway", "unreadable", "too few", "mixed", "transposed and bad"],
)
def test_an_exchange_of_x_and_y_is_noticed(predictions, suspicious):
    assert look_transposed(*transposed_pairs(predictions, TRUTH)) is suspicious


def test_pairs_are_counted_both_ways():
    assert transposed_pairs(TRUTH, TRUTH)[0] == transposed_pairs(TRANSPOSED, TRUTH)[1] == 40
    assert transposed_pairs([], []) == (0, 0)
