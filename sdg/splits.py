"""Splits by prompt: no caption stands in two of them, and the same captions and seed give the same ones."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b


def normalise(caption: str) -> str:
    """What two captions have in common that differ in case, white space or the writing of one character only."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().split())


class PromptSplit:
    """Which split a record belongs to.

    Prompts are put in an order that only the seed decides, and cut where the shares of records are reached; the order
    of the records plays no part. A record without a caption is a prompt of its own.

    Args:
        prompts: caption and id of every record.
        shares: share of the records by name of the split, each in 0..1, 1 together.
        seed: another one gives other splits.

    Attributes:
        counts: how many records each split gets.

    Raises:
        ValueError: for shares that are not such, no record, and a split that would stay empty.
    """

    def __init__(self, prompts: Iterable[tuple[str, str]], shares: Mapping[str, float], seed: int = 0) -> None:
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share} is not a share in 0..1")
        if abs(sum(shares.values()) - 1) > 1e-6:
            said = " + ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ValueError(f"{said} is {sum(shares.values()):g}; the shares make 1 together")
        self._seed = seed
        records = Counter(self._key(caption, id) for caption, id in prompts)
        total = records.total()
        if not total:
            raise ValueError("no record to split")
        self.counts = Counter(dict.fromkeys(shares, 0))
        self._split: dict[bytes, str] = {}
        wanted = {name: share for name, share in shares.items() if share > 0}
        ends, end = [], 0.0
        for name, share in wanted.items():
            end += share * total
            ends.append((name, end))
        before = 0
        for key in sorted(records):
            middle = before + records[key] / 2
            name = next((name for name, end in ends if middle < end), ends[-1][0])
            self._split[key] = name
            self.counts[name] += records[key]
            before += records[key]
        empty = next((name for name in wanted if not self.counts[name]), None)
        if empty is not None:
            raise ValueError(
                f"{empty}={shares[empty]:g} of {total} records with {len(records)} prompts is no record at all: give "
                "it a larger share, or 0"
            )

    def of(self, caption: str, id: str) -> str:
        """The split of a record.

        Raises:
            KeyError: for a prompt that was not there when the splits were made.
        """
        return self._split[self._key(caption, id)]

    def _key(self, caption: str, id: str) -> bytes:
        prompt = normalise(caption)
        said = f"{self._seed}\n{'caption' if prompt else 'id'}\n{prompt or id}"
        return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()
