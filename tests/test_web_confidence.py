"""What the page says of confidence, and of pictures that its model was not made for."""

from dataclasses import replace

from sdg.defects import Defect, DefectSet
from sdg.web import html

SURE = Defect((1, 2, 3, 4), "artifact", "a smear", 50, confidence=0.934)
OUTSIDE = {"out_of_world": {"score": 5.11, "threshold": 1.64, "outside": True, "false_alarms": 0.01}}
INSIDE = {"out_of_world": {"score": 0.8, "threshold": 1.64, "outside": False, "false_alarms": 0.01}}


def test_the_table_tells_a_confidence_where_there_is_one():
    assert "Confidence 93 %." in html.table(DefectSet((SURE,)))
    assert "Confidence above 99 %." in html.table(DefectSet((replace(SURE, confidence=0.998),)))
    assert "Confidence" not in html.table(DefectSet((replace(SURE, confidence=None),)))


def test_a_picture_from_elsewhere_gets_a_remark_and_a_way_out():
    remark = html.outside(DefectSet((SURE,), info=OUTSIDE))
    assert 'role="note"' in remark
    assert "unlike those that the model was trained on (distance 5.1; 1.6 is the limit)" in remark
    assert "<code>P1n3/sdg-detector-grpo</code>" in remark
    assert html.outside(DefectSet(info=INSIDE)) == html.outside(DefectSet()) == ""
