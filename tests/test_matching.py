from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg import boxes, matching
from sdg.defects import TYPES, Defect, DefectSet
from sdg.matching import assign, match, match_groups

A, M = TYPES
# A coarse grid makes overlaps, equal boxes and equal IoUs common.
corner = st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda c: c[0] != c[1]).map(sorted)
defect = st.builds(
    lambda x, y, kind, importance: Defect((x[0], y[0], x[1], y[1]), kind, "", importance),
    corner,
    corner,
    st.sampled_from(TYPES),
    st.integers(1, 3),
)
defects = st.lists(defect, max_size=5)


def best_total(scores):
    """Largest total of a one-to-one assignment, by trying all of them."""
    if scores.shape[0] > scores.shape[1]:
        scores = scores.T
    n, m = scores.shape
    return max(sum(scores[i, j] for i, j in enumerate(columns)) for columns in permutations(range(m), n))


def slow_greedy(predictions, references):
    pairs = [
        (boxes.iou(p.box, g.box)[0, 0], j, i)
        for i, p in enumerate(predictions)
        for j, g in enumerate(references)
        if p.type is g.type
    ]
    taken = []
    for score, j, i in sorted(pairs, reverse=True):
        if score > 0 and all(i != a and j != b for a, b, _ in taken):
            taken.append((i, j, score))
    return sorted(taken)


WIDE, LEFT, RIGHT = (0, 0, 100, 10), (0, 0, 60, 10), (55, 0, 100, 10)


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        ([], [], []),
        ([], [(A, WIDE)], []),
        ([(A, WIDE)], [], []),
        ([(A, WIDE)], [(M, WIDE)], []),
        ([(A, WIDE)], [(A, (200, 0, 300, 10))], []),
        ([(A, WIDE)], [(A, (100, 0, 200, 10))], []),
        ([(M, LEFT), (A, WIDE)], [(A, WIDE), (M, LEFT)], [(0, 1, 1.0), (1, 0, 1.0)]),
        ([(A, LEFT), (A, RIGHT)], [(A, RIGHT), (A, LEFT)], [(0, 1, 1.0), (1, 0, 1.0)]),
        ([(A, WIDE), (A, (0, 0, 100, 5))], [(A, WIDE)], [(0, 0, 1.0)]),
        ([(A, (0, 0, 100, 5))], [(A, WIDE)], [(0, 0, 0.5)]),
    ],
)
def test_match(predictions, references, expected, method):
    p, g = ([Defect(box, kind) for kind, box in side] for side in (predictions, references))
    assert match(p, g, method=method) == expected
    assert match(DefectSet(p), [d.to_json() for d in g], method=method) == expected


def test_the_two_methods_differ_where_the_best_pair_spoils_the_rest():
    p = [Defect((0, 0, 100, 10), A), Defect((0, 0, 50, 10), A)]
    g = [Defect((0, 0, 80, 10), A), Defect((40, 0, 100, 10), A)]
    # IoU 0.8 and 0.6 of the first, 0.625 and 0.1 of the second prediction
    assert match(p, g, method="greedy") == [(0, 0, 0.8), (1, 1, 0.1)]
    assert match(p, g, method="hungarian") == [(0, 1, 0.6), (1, 0, 0.625)]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], [(0, 0), (1, 1)]),  # first the higher column, then the higher row: (1, 1), (0, 0)
        ([[0.5, 0.5]], [(0, 1)]),
        ([[0.5], [0.5]], [(1, 0)]),
        ([[0.2, 0.9], [0.9, 0.1]], [(0, 1), (1, 0)]),
        ([[-0.5, -0.1]], [(0, 1)]),
    ],
)
def test_greedy_takes_the_higher_reference_then_the_higher_prediction(scores, expected):
    assert sorted(zip(*(a.tolist() for a in assign(scores, "greedy")), strict=True)) == expected


@pytest.mark.parametrize("method", ["hungarian", "greedy"])
def test_diou_keeps_pairs_that_do_not_overlap(method):
    p, g = [Defect((0, 0, 10, 10), A)], [Defect((10, 0, 20, 10), A), Defect((500, 500, 600, 600), A)]
    [(i, j, score)] = match(p, g, by="diou", method=method)
    assert (i, j) == (0, 0)
    assert score == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "giou"}, "by='giou' is none of iou, diou"),
        ({"method": "best"}, "matching='best' is none of hungarian, greedy"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        match([], [], **arguments)


def test_a_matrix_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(matching, "MAX_CELLS", 11)
    three, four = [Defect(WIDE, A)] * 3, [Defect(WIDE, A)] * 4
    assert len(match(three, three)) == 3
    for refused in (
        lambda: match(three, four),
        lambda: match(three, four, by="diou", method="greedy"),
        lambda: match_groups([WIDE] * 3, [0] * 3, [WIDE] * 4, [0] * 4),
    ):
        with pytest.raises(
            ValueError, match=r"3 predictions against 4 references .* 12 cells, more than 11: keep fewer"
        ):
            refused()


@given(defects, defects, st.sampled_from(["iou", "diou"]))
def test_hungarian_total_is_the_best_there_is(p, g, by):
    pairs = match(p, g, by=by)
    for kind in TYPES:
        rows, columns = ([d.box for d in side if d.type is kind] for side in (p, g))
        scores = getattr(boxes, by)(rows, columns)
        of_kind = [score for i, _, score in pairs if p[i].type is kind]
        assert sum(of_kind) == pytest.approx(best_total(scores) if scores.size else 0)
        if by == "diou":
            assert len(of_kind) == min(scores.shape)


@given(defects, defects, st.sampled_from(["iou", "diou"]), st.sampled_from(["hungarian", "greedy"]))
def test_pairs_are_one_to_one_of_one_type_and_carry_their_score(p, g, by, method):
    pairs = match(p, g, by=by, method=method)
    assert len({i for i, _, _ in pairs}) == len({j for _, j, _ in pairs}) == len(pairs)
    for i, j, score in pairs:
        assert p[i].type is g[j].type
        assert score == getattr(boxes, by)(p[i].box, g[j].box)[0, 0]
        assert by == "diou" or score > 0


@given(defects, defects)
def test_greedy_agrees_with_the_slow_version(p, g):
    assert match(p, g, method="greedy") == slow_greedy(p, g)


@given(st.data(), defects, defects, st.sampled_from(["iou", "diou"]))
def test_hungarian_does_not_depend_on_the_order_of_defects(data, p, g, by):
    def content(p, g):
        return sorted((p[i].box, p[i].importance, g[j].box, g[j].importance, s) for i, j, s in match(p, g, by=by))

    assert content(data.draw(st.permutations(p)), data.draw(st.permutations(g))) == content(p, g)


@given(st.lists(st.tuples(defects, defects), max_size=5), st.sampled_from(["hungarian", "greedy"]), st.integers(1, 9))
def test_many_images_at_once_agree_with_one_by_one(images, method, cells):
    def key(d):
        return TYPES.index(d.type), *((d.box, d.importance) if method == "hungarian" else ())

    images = [tuple(sorted(side, key=key) for side in image) for image in images]
    slow, before = [], np.zeros(2, int)
    for p, g in images:
        slow += [(i + before[0], j + before[1], score) for i, j, score in match(p, g, method=method)]
        before += len(p), len(g)
    columns = []
    for side in (0, 1):
        columns.append([d.box for image in images for d in image[side]])
        columns.append([2 * k + TYPES.index(d.type) for k, image in enumerate(images) for d in image[side]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_CELLS", cells)
        fast = match_groups(*columns, method=method)
    assert sorted(zip(*(a.tolist() for a in fast), strict=True)) == slow


def test_groups_without_anything():
    assert [len(a) for a in match_groups([], [], [], [])] == [0, 0, 0]
    assert [len(a) for a in match_groups([WIDE], [0], [], [])] == [0, 0, 0]
    assert [len(a) for a in match_groups([], [], [WIDE], [3])] == [0, 0, 0]
