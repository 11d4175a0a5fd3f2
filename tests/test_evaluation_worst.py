import pytest
from defect_cases import one

from sdg.evaluation import SDGEval, worst_images

HIT, FAR = one((0, 0, 400, 400), importance=20), one((600, 600, 900, 900), importance=90)
WORDS = one((0, 0, 400, 400), "misalignment", importance=50)


def errors(predictions, references, **options):
    return worst_images(SDGEval(None).count(predictions=predictions, references=references), **options)


@pytest.mark.parametrize(
    ("prediction", "reference", "missed", "false_alarms"),
    [
        ([], [HIT], {"artifact": 1, "misalignment": 0}, {"artifact": 0, "misalignment": 0}),
        ([HIT], [], {"artifact": 0, "misalignment": 0}, {"artifact": 1, "misalignment": 0}),
        ([HIT], [WORDS], {"artifact": 0, "misalignment": 1}, {"artifact": 1, "misalignment": 0}),
        ([HIT, HIT], [HIT, FAR], {"artifact": 1, "misalignment": 0}, {"artifact": 1, "misalignment": 0}),
    ],
)
def test_misses_and_false_alarms_are_counted_by_type(prediction, reference, missed, false_alarms):
    (found,) = errors([prediction], [reference])
    assert (found.missed, found.false_alarms) == (missed, false_alarms)
    assert found.readable


def test_images_without_an_error_are_none_of_the_worst():
    assert errors([[HIT], []], [[HIT], []]) == []


def test_most_errors_come_first_and_of_as_many_the_more_important():
    predictions = [[], [], [HIT], "unreadable", [HIT, FAR]]
    references = [[HIT], [FAR], [HIT], [FAR, HIT], []]
    assert [e.image for e in errors(predictions, references)] == [3, 4, 1, 0]
    assert [e.readable for e in errors(predictions, references)] == [False, True, True, True]
    assert [e.image for e in errors(predictions, references, n=2)] == [3, 4]


def test_the_iou_that_counts_as_found_can_be_said():
    near = one((0, 0, 400, 300), importance=20)
    assert errors([[near]], [[HIT]]) == []
    assert errors([[near]], [[HIT]], iou=0.8)[0].missed["artifact"] == 1
