import json
import tracemalloc
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdg.defects import TIERS, Defect, DefectSet
from sdg.statistics import ALL, COMPOSITION, NOT_GIVEN, collect, composition_of, plot_statistics

A, M = "artifact", "misalignment"


def record(*kinds: str, importance: int | None = 50, generator: str | None = "x") -> SimpleNamespace:
    return SimpleNamespace(
        defects=DefectSet(tuple(Defect((0, 0, 9, 9), kind, "", importance) for kind in kinds)), generator=generator
    )


@pytest.mark.parametrize(
    ("kinds", "composition"),
    [((), "clean"), ((A,), "artifact only"), ((A, A), "artifact only"), ((M,), "misalignment only"), ((M, A), "both")],
)
def test_composition(kinds, composition):
    assert composition_of(record(*kinds).defects) == composition


def test_counts_by_hand():
    found = collect(
        [
            record(),
            record(A, A, M, importance=95),
            record(A, importance=1, generator="b"),
            record(M, importance=None, generator=None),
        ]
    ).to_json()
    assert (found["images"], found["defects"]) == (4, {A: 3, M: 2})
    assert found["composition"] == {name: {"images": 1, "share": 0.25} for name in COMPOSITION}
    assert found["density"] == {
        ALL: {"mean": 1.25, "images": {"0": 1, "1": 2, "2": 0, "3": 1}},
        A: {"mean": 0.75, "images": {"0": 2, "1": 1, "2": 1}},
        M: {"mean": 0.5, "images": {"0": 2, "1": 2}},
    }
    zero = {**dict.fromkeys(TIERS, 0), NOT_GIVEN: 0}
    assert found["importance_by_generator"] == {
        "b": {"images": 1, "defects": 1, "tiers": zero | {"negligible": 1}},
        "x": {"images": 2, "defects": 3, "tiers": zero | {"critical": 3}},
        NOT_GIVEN: {"images": 1, "defects": 1, "tiers": zero | {NOT_GIVEN: 1}},
    }
    assert list(found["importance_by_generator"]) == ["b", "x", NOT_GIVEN]


def test_no_record_has_no_shares():
    found = collect([]).to_json()
    assert found["images"] == 0
    assert {part["share"] for part in found["composition"].values()} == {None}
    assert found["density"][ALL] == {"mean": None, "images": {}}


def test_a_picture_that_nobody_looked_at_is_not_clean():
    with pytest.raises(ValueError, match="cannot be counted: nobody looked"):
        collect([SimpleNamespace(defects=DefectSet(parse_error="nobody looked"), generator=None)])


records = st.builds(
    record,
    *[st.sampled_from([A, M])] * 2,
    importance=st.none() | st.integers(1, 100),
    generator=st.sampled_from(["x", "y", "", None]),
) | st.builds(record, generator=st.sampled_from(["x", "z"]))


@given(st.lists(records))
def test_every_picture_and_defect_is_counted_once_in_each_part(items):
    found = collect(items).to_json()
    defects = sum(len(item.defects) for item in items)
    parts = found["importance_by_generator"].values()
    assert found["images"] == len(items) == sum(part["images"] for part in found["composition"].values())
    assert sum(part["images"] for part in parts) == len(items)
    assert sum(part["defects"] for part in parts) == sum(sum(p["tiers"].values()) for p in parts) == defects
    for name, counts in found["density"].items():
        total = sum(int(k) * n for k, n in counts["images"].items())
        assert total == (defects if name == ALL else found["defects"][name])
    assert collect(reversed(items)).to_json() == found
    json.dumps(found, allow_nan=False)


def test_memory_does_not_grow_with_the_records():
    def stream(n):
        return (record(A, M, generator=f"g{k % 5}") for k in range(n))

    peaks = []
    collect(stream(3000))  # what the interpreter keeps of code that runs often is not ours
    for n in (200, 2000):
        tracemalloc.start()
        collect(stream(n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 10_000


@pytest.mark.parametrize(
    "items",
    [
        [record(), record(A, M), record(M, importance=None, generator=None)],
        [record(*[A] * 30)],
        [record(A, generator=f"a generator with a $very$ long name, number {k}") for k in range(20)],
        [],
    ],
)
def test_a_plot_has_three_panels(items, tmp_path):
    figure = plot_statistics(collect(items), "a $set$")
    figure.savefig(tmp_path / "plot.png")
    density, composition, tiers = figure.axes
    assert [bar.get_text() for bar in composition.texts] == [
        f"{100 * collect(items).composition[name] / max(len(items), 1):.1f} %" for name in COMPOSITION
    ]
    if any(len(item.defects) for item in items):
        rows = len(tiers.get_yticklabels())
        reach = {}
        for bar in tiers.patches:
            y = round(bar.get_y() + bar.get_height() / 2)
            reach[y] = max(reach.get(y, 0), bar.get_x() + bar.get_width())
        assert reach == pytest.approx(dict.fromkeys(range(rows), 100))
    heights = [bar.get_height() for bar in density.patches]
    assert sum(heights) == pytest.approx(300 if items else 0)
