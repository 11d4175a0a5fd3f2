import math

import pytest
from defect_cases import data_set, one, toy
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import TYPES, Defect
from sdg.evaluation import SDGEval, by_column, by_subtype, by_tier, summarise

FAR = one((900, 900, 950, 950))


def count(predictions, references):
    return SDGEval(embedder=toy).count(predictions=predictions, references=references)


@given(data_set, st.data())
def test_a_group_of_images_scores_as_it_does_alone(images, data):
    values = [data.draw(st.sampled_from(["b", "a", None, ""])) for _ in images]
    parts = by_column(count(*map(list, zip(*images, strict=True))), values)
    names = ["not given" if value in (None, "") else value for value in values]
    assert list(parts) == [name for name in ("a", "b", "not given") if name in names]
    for name, part in parts.items():
        group = [image for image, own in zip(images, names, strict=True) if own == name]
        assert part == pytest.approx(summarise(count(*map(list, zip(*group, strict=True)))), nan_ok=True)


def test_groups_may_be_numbers_and_have_intervals():
    counts = count([[one()], [], [one()]], [[one()]] * 3)
    parts = by_column(counts, [2, 10, 2], ci=0.9)
    assert {name: part["artifact/box_recall@0.5"] for name, part in parts.items()} == {"10": 0, "2": 1}
    assert parts["2"]["artifact/box_recall@0.5/ci"] == [1, 1]


def test_a_value_an_image_is_needed():
    with pytest.raises(ValueError, match="2 values for 1 images"):
        by_column(count([[]], [[]]), ["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(2,\), not one boolean for each of 1 images"):
        count([[]], [[]]).take([True, False])


@given(data_set)
def test_tiers_add_up_to_the_whole(images):
    counts = count(*map(list, zip(*images, strict=True)))
    whole, parts = summarise(counts), by_tier(counts)
    order = ["critical", "major", "moderate", "minor", "negligible", "not given"]
    assert list(parts) == [name for name in order if name in parts]
    for t in TYPES:
        true = sum(part[f"{t}/n_true"] for part in parts.values())
        assert true == sum(d["type"] == t for _, references in images for d in references)
        for tau in ("0.1", "0.5"):
            key = f"{t}/box_recall@{tau}"
            met = sum(part[key] * part[f"{t}/n_true"] for part in parts.values() if part[f"{t}/n_true"])
            assert whole[key] == pytest.approx(met / true if true else math.nan, nan_ok=True)


def test_recall_by_tier():
    references = [[one(importance=95), FAR | {"importance": 90}], [one(importance=14)], [one(importance=None)], []]
    parts = by_tier(count([[one()], [], [one()], [FAR]], references), ci=0.95)
    recall = {name: (part["artifact/box_recall@0.5"], part["artifact/n_true"]) for name, part in parts.items()}
    assert recall == {"critical": (0.5, 2), "negligible": (0, 1), "not given": (1, 1)}
    assert parts["not given"]["artifact/box_recall@0.5/ci"] == [1, 1]
    assert all(math.isnan(part["misalignment/box_recall@0.5"]) for part in parts.values())


def test_recall_by_subtype_takes_any_name():
    references = [
        [one() | {"subtype": "garbled_text"}, FAR | {"subtype": "texture_fault"}],
        [Defect.from_json(one() | {"subtype": "garbled_text"})],
        [one() | {"subtype": "smear", "box": (0.0, 0.0, 500.0, 500.0)}],
        [one()],
    ]
    parts = by_subtype(count([[one()], [], [one()], [one()]], references))
    recall = {name: part["artifact/box_recall@0.5"] for name, part in parts.items()}
    assert list(recall.items()) == [("texture_fault", 0), ("garbled_text", 0.5), ("smear", 1), ("not given", 1)]


def test_no_reference_no_part():
    counts = count([[one()]], [[]])
    assert by_tier(counts) == by_subtype(counts) == {}
    assert by_column(count([], []), []) == {}
