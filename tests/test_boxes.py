import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg import boxes

corner = st.integers(0, 999)
box = st.tuples(corner, corner, st.integers(1, 1000), st.integers(1, 1000)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 1000), min(b[1] + b[3], 1000))
)
some_boxes = st.lists(box, max_size=6)


@pytest.mark.parametrize(
    ("order", "given_box", "expected"),
    [
        ("xyxy", [10, 20, 30, 40], [10, 20, 30, 40]),
        ("yxyx", [20, 10, 40, 30], [10, 20, 30, 40]),
        ("xywh", [10, 20, 20, 20], [10, 20, 30, 40]),
    ],
)
def test_reorder(order, given_box, expected):
    assert boxes.reorder(given_box, order).tolist() == [expected]
    assert boxes.reorder([given_box] * 2, order).tolist() == [expected] * 2
    assert boxes.reorder([], order).shape == (0, 4)


def test_reorder_refuses_an_unknown_order():
    with pytest.raises(ValueError, match="order='xxyy' is not a box order; choose one of xyxy, yxyx, xywh"):
        boxes.reorder([[1, 2, 3, 4]], "xxyy")


@pytest.mark.parametrize(
    ("pixels", "size", "grid"),
    [
        ([0, 0, 128, 128], (128, 128), [0, 0, 1000, 1000]),
        ([64, 32, 128, 64], (128, 64), [500, 500, 1000, 1000]),
        ([1, 1, 2, 2], (3, 4), [1000 / 3, 250, 2000 / 3, 500]),
    ],
)
def test_pixels_and_grid(pixels, size, grid):
    assert boxes.to_grid(pixels, *size)[0] == pytest.approx(grid)
    assert boxes.to_pixels(grid, *size)[0] == pytest.approx(pixels)


@pytest.mark.parametrize("convert", [boxes.to_grid, boxes.to_pixels])
@pytest.mark.parametrize(("size", "named"), [((0, 5), "width=0"), ((5, -1), "height=-1"), ((5, np.nan), "height=nan")])
def test_an_image_has_a_size(convert, size, named):
    with pytest.raises(ValueError, match=f"{named} must be positive"):
        convert([[0, 0, 1, 1]], *size)


@pytest.mark.parametrize(("b", "expected"), [((0, 0, 4, 5), 20), ((3, 3, 3, 9), 0), ((9, 0, 4, 5), 0)])
def test_area(b, expected):
    assert boxes.area([b]).tolist() == [expected]


@pytest.mark.parametrize(
    ("a", "b", "iou", "diou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1, 1),
        ((0, 0, 10, 10), (0, 0, 10, 5), 0.5, 0.5 - 6.25 / 200),
        ((0, 0, 10, 10), (0, 0, 1, 10), 0.1, 0.1 - 20.25 / 200),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0, -100 / 500),
        ((0, 0, 10, 10), (90, 90, 100, 100), 0, -16200 / 20000),
        ((2, 2, 4, 4), (0, 0, 6, 6), 4 / 36, 4 / 36),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0, 0),
    ],
)
def test_iou_and_diou(a, b, iou, diou):
    for x, y in ((a, b), (b, a)):
        assert boxes.iou([x], [y]).tolist() == [[iou]]
        assert boxes.diou([x], [y])[0, 0] == pytest.approx(diou)


@pytest.mark.parametrize("score", [boxes.iou, boxes.diou])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_score_shapes(score, n, m):
    assert score([(0, 0, 1, 1)] * n, [(0, 0, 1, 1)] * m).shape == (n, m)


@given(some_boxes, some_boxes)
def test_iou_counts_cells(a, b):
    scale = [(x0 // 50, y0 // 50, x1 // 50 + 1, y1 // 50 + 1) for x0, y0, x1, y1 in a + b]
    cells = [{(x, y) for x in range(x0, x1) for y in range(y0, y1)} for x0, y0, x1, y1 in scale]
    slow = [[len(c & d) / len(c | d) for d in cells[len(a) :]] for c in cells[: len(a)]]
    assert boxes.iou(scale[: len(a)], scale[len(a) :]).tolist() == slow


@given(some_boxes, some_boxes)
def test_diou_lies_below_iou(a, b):
    iou, diou = boxes.iou(a, b), boxes.diou(a, b)
    assert (diou <= iou).all()
    assert (diou > -1).all()
    np.testing.assert_allclose(boxes.diou(b, a).T, diou)
    assert np.diag(boxes.diou(a, a)).tolist() == [1] * len(a)


@given(some_boxes, st.integers(1, 5000), st.integers(1, 5000))
def test_grid_round_trip(a, width, height):
    assert boxes.to_grid(boxes.to_pixels(a, width, height), width, height) == pytest.approx(boxes.as_boxes(a))
