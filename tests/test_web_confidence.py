"""What the page says of confidence, and of pictures that its model was not made for."""

import re
from dataclasses import replace

import pytest
from PIL import Image

from sdg.defects import Defect, DefectSet
from sdg.web import html, result
from sdg.web.detect import show

SURE = Defect((1, 2, 3, 4), "artifact", "a smear", 50, confidence=0.934)
OUTSIDE = {"out_of_world": {"score": 5.11, "threshold": 1.64, "outside": True, "false_alarms": 0.01}}
INSIDE = {"out_of_world": {"score": 0.8, "threshold": 1.64, "outside": False, "false_alarms": 0.01}}


def test_the_table_tells_a_confidence_where_there_is_one():
    assert "Confidence 93 %." in result.table(DefectSet((SURE,)))
    assert "Confidence above 99 %." in result.table(DefectSet((replace(SURE, confidence=0.998),)))
    assert "Confidence" not in result.table(DefectSet((replace(SURE, confidence=None),)))


def test_a_picture_from_elsewhere_gets_a_verdict_of_its_own_and_a_way_out():
    verdict = html.verdict_on(DefectSet((SURE,), info=OUTSIDE))
    assert 'data-state="outside"' in verdict
    assert "unlike those that the model was trained on (distance 5.11; 1.64 is the limit)" in verdict
    assert "It reports 1 defect." in verdict
    assert "<code>P1n3/sdg-detector-grpo</code>" in verdict
    assert "It reports no defect." in html.verdict_on(DefectSet(info=OUTSIDE))
    assert 'data-state="found"' in html.verdict_on(DefectSet((SURE,), info=INSIDE))


def test_an_answer_that_could_not_be_read_is_that_first_of_all():
    verdict = html.verdict_on(DefectSet(parse_error="no list", info=OUTSIDE))
    assert 'data-state="unread"' in verdict
    assert "unlike those that the model was trained on" in verdict


@pytest.mark.parametrize(("info", "doubted"), [(OUTSIDE, True), (INSIDE, False), ({}, False)])
def test_frames_and_rows_of_a_picture_from_elsewhere_look_doubtful(info, doubted):
    view = show(Image.new("RGB", (8, 8)), DefectSet((SURE,), info=info))
    for part in ("picture", "table"):
        assert ("doubted" in view[part]["value"]) is doubted


@pytest.mark.parametrize(
    ("defects", "sliders"),
    [
        ((SURE,), ["importance", "confidence"]),
        ((replace(SURE, confidence=None),), ["importance"]),
        ((replace(SURE, importance=None),), ["confidence"]),
        ((replace(SURE, importance=None, confidence=None),), []),
    ],
)
def test_there_is_a_slider_for_what_can_be_told_apart(defects, sliders):
    assert re.findall(r'data-filter="(\w+)"', result.filters(DefectSet(defects))) == sliders
