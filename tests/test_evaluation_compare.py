import math
from itertools import product

import numpy as np
import pytest
from defect_cases import data_set, item, one, toy
from hypothesis import given, settings
from hypothesis import strategies as st

from sdg.evaluation import SDGEval, compare_counts

NAN = math.nan
FAR = one((900, 900, 950, 950))


def compare(first, second, references, **options):
    metric = SDGEval(**{"embedder": toy, **options})
    return metric.compare(predictions=first, against=second, references=references)


@given(data_set, st.data())
@settings(max_examples=30)
def test_values_are_those_of_each_set_by_itself(images, data):
    first, references = map(list, zip(*images, strict=True))
    second = [data.draw(st.lists(item, max_size=3)) for _ in images]
    found = compare(first, second, references)
    one_by_one = [SDGEval(embedder=toy).compute(predictions=p, references=references) for p in (first, second)]
    for key, d in found.items():
        assert [d.value, d.against] == pytest.approx([result[key] for result in one_by_one], nan_ok=True)
        assert d.difference == pytest.approx(d.value - d.against, nan_ok=True)
        assert math.isnan(d.p_value) == math.isnan(d.difference)
        assert math.isnan(d.p_value) or 0 < d.p_value <= 1


def test_the_same_predictions_do_not_differ():
    sets = [[one()], [FAR], [], [one(type="misalignment")]] * 5
    for d in compare(sets, sets, [[one()]] * 20).values():
        known = not math.isnan(d.difference)
        assert [d.difference, d.low, d.high, d.p_value] == pytest.approx(
            [0, 0, 0, 1] if known else [NAN] * 4, nan_ok=True
        )


def test_either_way_round_is_the_same_test():
    random = np.random.default_rng(0)
    first, second = ([[one() if random.random() < share else FAR] for _ in range(40)] for share in (0.8, 0.5))
    there, back = (compare(*sets, [[one()]] * 40) for sets in ((first, second), (second, first)))
    for key, d in there.items():
        other = back[key]
        assert d.difference == pytest.approx(-other.difference, nan_ok=True)
        assert [d.low, d.high] == pytest.approx([-other.high, -other.low], nan_ok=True)
        assert d.p_value == pytest.approx(other.p_value, nan_ok=True)


def exact_p(first, second, references, key):
    """By scoring every exchange of some images anew."""
    metric = SDGEval(embedder=toy)
    differences = []
    for swaps in product((False, True), repeat=len(references)):
        pairs = [(b, a) if swap else (a, b) for a, b, swap in zip(first, second, swaps, strict=True)]
        one_way, other = map(list, zip(*pairs, strict=True))
        values = [metric.compute(predictions=p, references=references)[key] for p in (one_way, other)]
        differences.append(abs(values[0] - values[1]))
    return np.mean([d >= differences[0] - 1e-9 for d in differences if not math.isnan(d)])


@pytest.mark.parametrize(
    "key", ["artifact/box_f1@0.5", "artifact/imp_acc@0.1", "artifact/desc_cos@0.1", "artifact/cln_acc", "parse_rate"]
)
def test_p_values_agree_with_scoring_every_exchange(key):
    near = one((0, 0, 500, 490), reason="bb", importance=20)
    references = [[one()], [one(), FAR], [], [one()], [one()], [], [one()]]
    first = [[near], [one(), FAR], [], [near], [one()], [], [near, FAR]]
    second = [[FAR], [one()], [FAR], [], [near], "no idea", [one()]]
    found = compare(first, second, references)[key]
    assert found.p_value == pytest.approx(exact_p(first, second, references, key), abs=0.02)
    assert found.difference != 0


def test_a_clear_difference_and_its_interval():
    # One never marks a clean picture, the other every second time.
    n = 400
    found = compare([[]] * n, [[one()], []] * (n // 2), [[]] * n)["artifact/cln_acc"]
    half = 1.96 * math.sqrt(0.25 / n)
    assert (found.value, found.against, found.difference) == (1, 0.5, 0.5)
    assert [found.low, found.high] == pytest.approx([0.5 - half, 0.5 + half], abs=0.01)
    assert found.p_value == pytest.approx(1 / 10_001)


def test_pairing_takes_out_what_makes_pictures_hard():
    # Both fail on the same half; they differ on one picture in twenty.
    hard = [k % 2 == 0 for k in range(200)]
    first = [[FAR] if h else [one()] for h in hard]
    second = [[FAR] if h or k % 20 == 1 else [one()] for k, h in enumerate(hard)]
    references = [[one()]] * 200
    key = "artifact/box_recall@0.5"
    found = compare(first, second, references)[key]
    low, high = SDGEval(embedder=None, ci=0.95).compute(predictions=first, references=references)[f"{key}/ci"]
    assert found.high - found.low < (high - low) / 2
    assert 0 < found.low < 0.05 < found.high


def test_chance_alone_is_rarely_significant():
    random = np.random.default_rng(1)
    references = [[one()]] * 60
    p = []
    for _ in range(40):
        first, second = ([[one() if hit else FAR] for hit in random.random(60) < 0.5] for _ in range(2))
        p.append(compare(first, second, references, embedder=None)["artifact/box_f1@0.5"].p_value)
    assert np.mean(np.array(p) < 0.05) <= 0.1
    assert np.median(p) > 0.3


def test_no_image():
    assert all(math.isnan(d.p_value) and math.isnan(d.low) for d in compare([], [], []).values())


def counted(references, **options):
    return SDGEval(**{"embedder": None, **options}).count(predictions=[[]] * len(references), references=references)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (([[one()], []], {}), ([[], [one()]], {}), "image 0 has other references of type artifact"),
        (([[]], {}), ([[], []], {}), "the first table has 1 images, the second 2"),
        (([[]], {}), ([[]], {"matching": "greedy"}), "matching is 'hungarian' in the first table and 'greedy' in"),
        (([[]], {}), ([[]], {"embedder": toy}), "embedder is None in the first table and 'toy' in the second"),
        (([[]], {}), ([[]], {"iou_thresholds": [0.5]}), r"iou_thresholds is \(0\.1, 0\.5\) in the first"),
    ],
)
def test_tables_that_cannot_be_compared(first, second, message):
    with pytest.raises(ValueError, match=message):
        compare_counts(counted(first[0], **first[1]), counted(second[0], **second[1]))


@pytest.mark.parametrize("ci", [0, 1, 95])
def test_a_level_outside_0_to_1_is_named(ci):
    with pytest.raises(ValueError, match=f"ci={ci} is not a level"):
        compare_counts(counted([[]]), counted([[]]), ci=ci)
