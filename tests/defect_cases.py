"""What the tests of SDG-Eval share: defects as dictionaries, their response, a toy embedder, small random data sets."""

import json
import math

import numpy as np
from hypothesis import strategies as st

ANGLES = {"aa": 0.0, "bb": math.acos(0.6), "cc": math.pi / 2}


def toy(texts):
    return np.array([[math.cos(ANGLES[t]), math.sin(ANGLES[t])] for t in texts]).reshape(-1, 2)


def one(box=(0, 0, 500, 500), type="artifact", reason="aa", importance=50):
    return {"box": list(box), "type": type, "reason": reason, "importance": importance}


def answer(*defects, think="<think>seen</think>"):
    items = [
        {"box_2d": d["box"], "label": d["type"], "description": d["reason"], "importance": d["importance"]}
        for d in defects
    ]
    return f"{think}<answer>{json.dumps(items)}</answer>"


# A coarse grid, so that overlaps, equal boxes and ties are common.
corner = st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(lambda c: c[0] != c[1]).map(sorted)
item = st.builds(
    lambda x, y, *rest: one((x[0], y[0], x[1], y[1]), *rest),
    corner,
    corner,
    st.sampled_from(["artifact", "misalignment"]),
    st.sampled_from(["", *ANGLES]),
    st.none() | st.integers(1, 100),
)
items = st.lists(item, max_size=4)
data_set = st.lists(st.tuples(items, items), min_size=1, max_size=5)
