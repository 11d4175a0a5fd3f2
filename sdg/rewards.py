"""The detector's reward (Eq. 3, 11-13): format, places, reasons and importances of one answer as one number.

A reward function in TRL's form: ``GRPOTrainer(reward_funcs=DetectorReward(), ...)``.
"""

from __future__ import annotations

import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdg.boxes import diou
from sdg.defects import TYPES, Defect, DefectSet, DefectType
from sdg.embedding import Embedder, EmbedderNotFound, embed_unique, load_embedder
from sdg.matching import assign
from sdg.response import ResponseFormatError, parse_response

logger = logging.getLogger(__name__)

_THINK = re.compile(r"<think>", re.IGNORECASE)
_KINDS_LOGGED = 50
_TOGETHER = 16
"""Answers whose boxes are compared at once: numpy's calls cost more than the pairs of one answer with another's."""

Pairs = Sequence[tuple[int, int, float]]
"""Matched defects of an answer: index in it, index in the true set, DIoU."""

References = DefectSet | Iterable[Defect | Mapping[str, Any]] | Mapping[str, Any] | str
"""What names the true defects of one picture: a set, a list of defects or of their dictionaries, JSON of these."""


@dataclass(frozen=True)
class RewardParts:
    """The reward of one answer and what it is made of.

    Args:
        total: the reward, -1..1 with the paper's settings.
        loc: places, -1..1; -1 where the format is invalid.
        desc: reasons, 0..1.
        imp: importances, 0..1.
        format_ok: whether the answer passed the format gate.
        error: why it did not, or None.
    """

    total: float
    loc: float
    desc: float
    imp: float
    format_ok: bool
    error: str | None = None


@dataclass(eq=False)
class DetectorReward:
    """Reward of a detector's answers against the true defects, the paper's settings by default (Eq. 3, App. D).

    An answer that fails the format gate of :func:`sdg.parse_response` scores ``invalid``. Any other scores
    ``loc_weight * R_loc + desc_weight * R_desc + imp_weight * R_imp``. Defects are matched one to one within their
    type, by DIoU and without a threshold; with n the larger number of defects, and at least 1:

    - R_loc: (sum of matched DIoU - ``unmatched_penalty`` * unmatched defects of both sides) / n, clipped to -1..1,
      where both sides have defects; ``both_clean``, ``missed_all`` or ``invented_all`` where one or both have none.
    - R_desc: sum of clip((cosine of the two reasons - ``cosine_low``) / ``cosine_range``, 0, 1) / n.
    - R_imp: sum of clip(1 - difference of importances / ``importance_range``, 0, 1) / n.

    A pair in which a side has no reason (or no importance) counts 0 in R_desc (or R_imp).

    Args:
        embedder: what turns reasons into vectors, see :func:`sdg.embedding.load_embedder`. Each distinct reason is
            embedded once, all new ones of a batch in one call.
        require_think: ask for a think tag; False for a detector that answers without thinking aloud.
        invalid: reward of an answer that fails the format gate.
        loc_weight: weight of R_loc.
        desc_weight: weight of R_desc.
        imp_weight: weight of R_imp.
        both_clean: R_loc where there is no defect and none is reported.
        missed_all: R_loc where there are defects and none is reported.
        invented_all: R_loc where there is no defect and some are reported.
        unmatched_penalty: what an unmatched defect of either side costs in R_loc.
        cosine_low: cosine up to which two reasons have nothing in common.
        cosine_range: how far above it they count as the same.
        importance_range: difference of importances from which R_imp is 0.
        cache_size: vectors of reasons that are kept between batches, the last used ones.

    Raises:
        ValueError: for a negative range or cache size.
        EmbedderNotFound: as :func:`sdg.embedding.load_embedder`.

    Example:
        >>> reward = DetectorReward(embedder=lambda texts: [[1.0, 0.0]] * len(texts))
        >>> reward(["<think>looks fine</think><answer>[]</answer>"], defects=[[]])
        [0.18]
    """

    embedder: Any = "auto"
    require_think: bool = True
    invalid: float = -1.0
    loc_weight: float = 0.6
    desc_weight: float = 0.25
    imp_weight: float = 0.15
    both_clean: float = 0.3
    missed_all: float = -0.8
    invented_all: float = -0.3
    unmatched_penalty: float = 0.5
    cosine_low: float = 0.5
    cosine_range: float = 0.4
    importance_range: float = 50.0
    cache_size: int = 50_000
    _vectors: OrderedDict[str, NDArray[np.float64]] = field(default_factory=OrderedDict, init=False, repr=False)
    _logged: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("cosine_range", "importance_range"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")
        if self.cache_size < 0:
            raise ValueError(f"cache_size={self.cache_size!r} must not be negative; 0 keeps nothing between batches")
        self.embedder: Embedder = load_embedder(self.embedder)

    def __call__(
        self,
        completions: Sequence[Any],
        defects: Sequence[References] | None = None,
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Rewards of a batch, as TRL's trainers ask for them.

        Args:
            completions: n answers: texts, or chats whose last message is the answer.
            defects: n true sets: the column of a data set of :mod:`sdg.records`, or any of :data:`References`.
            log_metric: given by TRL; takes the mean parts of the readable answers and the share of them.
            log_extra: given by TRL; takes the parts of every answer, for the table of completions.
            **columns: TRL's other columns, which are not read.

        Returns:
            n rewards.

        Raises:
            ValueError: for a column ``defects`` that is missing, of another length, or no list of defects. An answer
                never raises, whatever is in it.
        """
        if defects is None:
            raise ValueError(
                f"the reward needs the column 'defects' (the true defects of each picture); there are {sorted(columns)}"
            )
        if len(defects) != len(completions):
            raise ValueError(f"{len(completions)} completions but {len(defects)} rows of defects")
        references = []
        for row, true in enumerate(defects):
            try:
                references.append(_reference(true))
            except ValueError as error:
                raise ValueError(f"defects of row {row}: {error}") from None
        scored = self._score(completions, references)
        if log_extra is not None:
            for name in ("loc", "desc", "imp", "format_ok"):
                log_extra(name, [getattr(parts, name) for parts in scored])
        if log_metric is not None and scored:
            valid = [parts for parts in scored if parts.format_ok]
            log_metric("detector_reward/format_ok", len(valid) / len(scored))
            for name in ("loc", "desc", "imp") if valid else ():
                log_metric(f"detector_reward/{name}", float(np.mean([getattr(parts, name) for parts in valid])))
        return [parts.total for parts in scored]

    def score(self, text: str, reference: References) -> RewardParts:
        """Reward and parts of one answer.

        Args:
            text: the answer.
            reference: the true defects.

        Raises:
            ValueError: for a reference that is no list of defects.
        """
        return self._score([text], [_reference(reference)])[0]

    def _score(self, completions: Sequence[Any], references: Sequence[DefectSet]) -> list[RewardParts]:
        errors: list[str | None] = [None] * len(completions)
        found = [DefectSet()] * len(completions)
        for row, completion in enumerate(completions):
            try:
                found[row] = self._read(completion)
            except Exception as error:  # whatever a policy writes, training goes on
                errors[row] = self._note(error)
        pairs = _match(found, references)
        texts = [
            (row, found[row][i].reason, references[row][j].reason)
            for row, matched in enumerate(pairs)
            for i, j, _ in matched
            if found[row][i].reason.strip() and references[row][j].reason.strip()
        ]
        vectors, failures = self._embed([p for _, p, _ in texts], [g for _, _, g in texts])
        described = np.zeros(len(completions))
        for row, p, g in texts:
            if p in failures:
                errors[row] = self._note(failures[p])
            else:
                above = (float(vectors[p] @ vectors[g]) - self.cosine_low) / self.cosine_range
                described[row] += min(max(above, 0.0), 1.0)
        return [self._parts(*row) for row in zip(found, references, pairs, described.tolist(), errors, strict=True)]

    def _read(self, completion: Any) -> DefectSet:
        text = _text(completion)
        if not self.require_think and not _THINK.search(text):
            text = f"<think></think>{text}"
        return parse_response(text, strict=True)

    def _parts(
        self,
        found: DefectSet,
        true: DefectSet,
        matched: Pairs,
        described: float,
        error: str | None,
    ) -> RewardParts:
        if error is not None:
            return RewardParts(self.invalid, -1.0, 0.0, 0.0, False, error)
        n = max(len(found), len(true), 1)
        if not found or not true:
            loc = self.both_clean if not found and not true else self.invented_all if found else self.missed_all
        else:
            unmatched = len(found) + len(true) - 2 * len(matched)
            loc = (sum(score for _, _, score in matched) - self.unmatched_penalty * unmatched) / n
            loc = min(max(loc, -1.0), 1.0)
        weighed = 0.0
        for i, j, _ in matched:
            p, g = found[i].importance, true[j].importance
            if p is not None and g is not None:
                weighed += max(1 - abs(p - g) / self.importance_range, 0.0)
        desc, imp = described / n, weighed / n
        total = self.loc_weight * loc + self.desc_weight * desc + self.imp_weight * imp
        return RewardParts(total, loc, desc, imp, True)

    def _embed(
        self, predicted: Sequence[str], true: Sequence[str]
    ) -> tuple[Mapping[str, NDArray[np.float64]], Mapping[str, Exception]]:
        """Unit vectors of the reasons, and the predicted reasons that the embedder could not take, with its errors."""
        wanted = dict.fromkeys([*true, *predicted])
        vectors: dict[str, NDArray[np.float64]] = {}
        for text in wanted:
            if text in self._vectors:
                self._vectors.move_to_end(text)
                vectors[text] = self._vectors[text]
        new = [text for text in wanted if text not in vectors]
        failures: dict[str, Exception] = {}
        try:
            self._embed_new(new, vectors)
        except EmbedderNotFound:
            raise
        except Exception:
            # True reasons go first: where the embedder cannot take those, it is at fault, and its error is raised.
            known = set(true)
            self._embed_new([text for text in new if text in known], vectors)
            for text in new:
                if text not in vectors:
                    try:
                        self._embed_new([text], vectors)
                    except Exception as error:
                        failures[text] = error
        for text in new:
            if text in vectors:
                self._vectors[text] = vectors[text]
        while len(self._vectors) > self.cache_size:
            self._vectors.popitem(last=False)
        return vectors, failures

    def _embed_new(self, texts: Sequence[str], vectors: dict[str, NDArray[np.float64]]) -> None:
        # JSON can spell half a surrogate pair, which no tokenizer takes.
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        vectors.update(zip(texts, embed_unique(clean, self.embedder), strict=True))

    def _note(self, error: Exception) -> str:
        """Log an answer that broke something, the first time for each kind of fault."""
        reason = str(error) if isinstance(error, ResponseFormatError) else f"{type(error).__name__}: {error}"
        kind = re.sub(r"'[^']*'|\"[^\"]*\"|[\d.]+", "#", reason)[:60]
        if kind not in self._logged and len(self._logged) < _KINDS_LOGGED:
            self._logged.add(kind)
            logger.warning("an answer scores %s: %s (said once for this kind of fault)", self.invalid, reason[:300])
        return reason


def _match(found: Sequence[DefectSet], references: Sequence[DefectSet]) -> list[Pairs]:
    """What :func:`sdg.matching.match` finds by DIoU, for many pictures."""
    matched: list[Pairs] = []
    for start in range(0, len(found), _TOGETHER):
        some = list(zip(found[start : start + _TOGETHER], references[start : start + _TOGETHER], strict=True))
        scores = diou([d.box for p, _ in some for d in p], [d.box for _, g in some for d in g])
        row = column = 0
        for p, g in some:
            matched.append(_match_one(p, g, scores[row : row + len(p), column : column + len(g)]))
            row, column = row + len(p), column + len(g)
    return matched


def _match_one(found: DefectSet, true: DefectSet, scores: NDArray[np.float64]) -> Pairs:
    pairs: list[tuple[int, int, float]] = []
    for kind in TYPES if scores.size else ():
        rows, columns = _in_order(found, kind), _in_order(true, kind)
        if len(rows) == len(columns) == 1:
            pairs.append((rows[0], columns[0], float(scores[rows[0], columns[0]])))
        elif rows and columns:
            block = scores[np.ix_(rows, columns)]
            chosen = zip(*(index.tolist() for index in assign(block)), strict=True)
            pairs += [(rows[r], columns[c], float(block[r, c])) for r, c in chosen]
    return pairs


def _in_order(defects: DefectSet, kind: DefectType) -> list[int]:
    """Indices of the defects of a type, by content: of equal optima the order of a list must not choose."""
    indices = [k for k, d in enumerate(defects) if d.type is kind]
    if len(indices) > 1:
        indices.sort(key=lambda k: (defects[k].box, defects[k].importance or 0, defects[k].reason))
    return indices


def _text(completion: Any) -> str:
    """The answer's text, of a plain or a chat completion."""
    if isinstance(completion, Sequence) and not isinstance(completion, str) and completion:
        completion = completion[-1]
    if isinstance(completion, Mapping):
        completion = completion.get("content")
    if isinstance(completion, Sequence) and not isinstance(completion, str):
        completion = "".join(part.get("text") or "" for part in completion)
    if not isinstance(completion, str):
        raise ResponseFormatError(f"the completion is a {type(completion).__name__}, not text")
    return completion


def _reference(true: Any) -> DefectSet:
    """The true defects, of any of :data:`References`."""
    if isinstance(true, str):
        true = json.loads(true)
    if isinstance(true, Mapping):
        return DefectSet.from_json(true)
    return DefectSet.of(true)
