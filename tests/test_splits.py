from collections import Counter

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from sdg.splits import PromptSplit, normalise

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a Red  house", "A red house ", True),
        ("a red\thouse\n", "a red house", True),
        ("Straße", "STRASSE", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("a red house", "a red house.", False),
        ("a red house", "a redhouse", False),
    ],
)
def test_what_counts_as_the_same_caption(one, other, same):
    assert (normalise(one) == normalise(other)) is same
    found = PromptSplit([(one, "1"), (other, "2")] * 50 + [(str(k), str(k)) for k in range(900)], SHARES)
    assert not same or found.of(one, "1") == found.of(other, "2")


def test_shares_are_met():
    prompts = [(f"caption {k // 4}", str(k)) for k in range(4000)]
    found = PromptSplit(prompts, SHARES, seed=3)
    assert found.counts == {"train": 3200, "validation": 400, "test": 400}
    assert Counter(found.of(*p) for p in prompts) == found.counts


def test_these_are_the_splits_of_seed_0():
    found = PromptSplit([(f"caption {k}", "") for k in range(10)], {"train": 0.5, "test": 0.5})
    assert [k for k in range(10) if found.of(f"caption {k}", "") == "test"] == [4, 6, 7, 8, 9]


captions = st.lists(st.text(max_size=6), min_size=12, max_size=60)


@given(captions, st.integers(0, 5), st.randoms())
def test_disjoint_deterministic_and_blind_to_order(texts, seed, random):
    prompts = [(text, str(number)) for number, text in enumerate(texts)]
    shares = {"train": 0.5, "validation": 0.0, "test": 0.5}
    try:
        found = PromptSplit(prompts, shares, seed)
    except ValueError:
        reject()  # one prompt that nearly all records share
    shuffled = random.sample(prompts, len(prompts))
    again = PromptSplit(shuffled, shares, seed)
    names = {}
    for caption, id in prompts:
        assert found.of(caption, id) == again.of(caption, id)
        if normalise(caption):
            assert names.setdefault(normalise(caption), found.of(caption, id)) == found.of(caption, id)
    assert found.counts["validation"] == 0
    assert found.counts.total() == len(texts)


def test_records_without_a_caption_are_prompts_of_their_own():
    found = PromptSplit([(" ", str(k)) for k in range(1000)], SHARES)
    assert found.counts == {"train": 800, "validation": 100, "test": 100}


def test_another_seed_gives_other_splits():
    prompts = [(str(k), "") for k in range(100)]
    first, second = (PromptSplit(prompts, SHARES, seed) for seed in (0, 1))
    assert any(first.of(*p) != second.of(*p) for p in prompts)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"train": 0.8, "test": 0.1}, r"train 0.8 \+ test 0.1 is 0.9; the shares make 1"),
        ({"train": 1.2, "test": -0.2}, "train=1.2 is not a share"),
        ({"train": float("nan")}, "train=nan is not a share"),
        ({"train": 0.99, "test": 0.01}, "test=0.01 of 6 records with 3 prompts is no record at all"),
    ],
)
def test_shares_that_are_refused(shares, said):
    with pytest.raises(ValueError, match=said):
        PromptSplit([(str(k // 2), "") for k in range(6)], shares)


def test_nothing_to_split():
    with pytest.raises(ValueError, match="no record"):
        PromptSplit([], SHARES)
