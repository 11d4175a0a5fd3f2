"""Decoding that can only write a valid answer.

A grammar (xgrammar) leaves the model no other text than the response format. What a grammar cannot say is added by a
small logits processor: that a box's second corner is right of and below its first, and that the list is closed before
the limit of new tokens. Numbers may be one token each or be spelt in digits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from sdg.boxes import GRID

THINK_END = "</think>\n<answer>["
BOX_START = '{"box_2d": ['
IMPORTANCE_START = '", "importance": '
LIST_END = "}]</answer>"

# Upper bounds in tokens: in the worst case all is spelt byte by byte.
CLOSING_ROOM = 2 * len(IMPORTANCE_START) + 3 + len(LIST_END) + 8
OBJECT_ROOM = len(BOX_START) + 4 * len("1000, ") + len('], "label": "misalignment", "description": "') + CLOSING_ROOM
MIN_NEW_TOKENS = 2 * (OBJECT_ROOM + len(THINK_END))
"""The least limit of new tokens under which every answer can be closed."""

GRAMMAR = r"""
root ::= "<think>" [^<]+ "</think>\n<answer>[" ("]" | object (", " object)* "]") "</answer>"
object ::= "{\"box_2d\": [" number ", " number ", " number ", " number "], \"label\": \"" label text rest
label ::= "artifact" | "misalignment"
text ::= "\", \"description\": \"" character+
character ::= [^"\\<\x00-\x1f\x7f] | "\\" ["\\/bfnrt]
rest ::= "\", \"importance\": " ("100" | [1-9] [0-9]?) "}"
number ::= "1000" | "0" | [1-9] [0-9]? [0-9]?
"""
"""The response format as :func:`sdg.response.render_response` writes it, in EBNF."""

_BOX = re.compile(rb'"box_2d": \[([0-9, ]*)$')
_TEXT = re.compile(rb'"description": "((?:[^"\\]|\\.)*\\?)$', re.DOTALL)
_IMPORTANCE = re.compile(rb'"importance": [0-9]+$')
_CONTINUATION = bytes(range(0x80, 0xC0))
_NUMBER = re.compile(rb"( *)([0-9]+)(.*)", re.DOTALL)


def completable(digits: str, low: int, high: int) -> bool:
    """Whether ``digits``, as they are or with more digits behind, can be a number in ``low``..``high`` (at most 1000).

    Example:
        >>> completable("3", 300, 1000), completable("3", 400, 1000), completable("0", 1, 1000)
        (True, False, False)
    """
    if not digits:
        return low <= high
    if digits[0] == "0":
        return digits == "0" and low <= 0 <= high
    value = int(digits)
    while value <= high:
        # ``value`` with k more digits spans value*10^k .. value*10^k + 10^k - 1.
        span = 10 ** (len(str(value)) - len(digits))
        if max(value, low) <= min(value + span - 1, high):
            return True
        value *= 10
    return False


class Constraint:
    """The compiled format for one tokenizer; :meth:`processors` makes the logits processors of one call.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocab_size: width of the model's logits.
        ends: ids of the tokens that end an answer.

    Raises:
        ImportError: where xgrammar is not installed.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, ends: Iterable[int]):
        try:
            import xgrammar
        except ImportError as error:
            raise ImportError("constrained=True needs xgrammar: pip install 'sdg-t2i[constrain]'") from error
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab_size, stop_token_ids=sorted(ends))
        self._grammar = xgrammar.GrammarCompiler(info).compile_grammar(GRAMMAR)
        self._tokenizer = tokenizer
        self.ends = frozenset(ends)
        self.vocabulary: list[bytes] = info.decoded_vocab
        self.leading_comma = self._ids(lambda token: token.startswith(b","))
        self.leading_brace_comma = self._ids(lambda token: token.startswith(b"},"))
        self._numeric = [
            (index, match[1], match[2].decode(), match[3])
            for index, token in enumerate(self.vocabulary)
            if (match := _NUMBER.fullmatch(token))
        ]
        self._other = self._ids(lambda token: not _NUMBER.fullmatch(token) and _has_digit(token))
        self._plain = self._ids(lambda token: not _has_digit(token))
        self._refused_numbers = functools.lru_cache(maxsize=4096)(self._numbers_refused_after)

    def processors(self, max_new_tokens: int) -> tuple[LogitsProcessor, OrderAndRoom]:
        """Fresh processors for one ``generate`` call, in their order."""
        from xgrammar.contrib.hf import LogitsProcessor as GrammarProcessor

        return GrammarProcessor(self._grammar), OrderAndRoom(self, max_new_tokens)

    @functools.lru_cache(maxsize=64)  # noqa: B019 (a constraint lives as long as its engine)
    def encode(self, text: str) -> list[int]:
        """Token ids that spell ``text``."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def refused_in_box(self, digits: str, low: int, high: int) -> list[Tensor]:
        """Ids that must not follow ``digits`` of a box's number, which has to end in ``low``..``high``."""
        refused = [self._other, self._refused_numbers(digits, low, high)]
        # What holds no digit ends the number, or is the space before it.
        return [*refused, self._plain] if digits and not low <= int(digits) <= high else refused

    def _numbers_refused_after(self, digits: str, low: int, high: int) -> Tensor:
        refused = []
        for index, space, more, rest in self._numeric:
            if digits and space:
                allowed = False
            elif rest:
                allowed = not _has_digit(rest) and low <= int(digits + more) <= high
            else:
                allowed = completable(digits + more, low, high)
            if not allowed:
                refused.append(index)
        return torch.tensor(refused, dtype=torch.long)

    def _ids(self, condition: Callable[[bytes], bool]) -> Tensor:
        return torch.tensor([i for i, t in enumerate(self.vocabulary) if t and condition(t)], dtype=torch.long)


class OrderAndRoom(LogitsProcessor):
    """Refuses what breaks the order of a box's corners, and what would leave no room to close the list.

    The think text may take half of the limit. An object is begun only with room for a whole one; a description that
    runs to the limit is ended. Numbers, labels and importances stay the model's own. Comes after the grammar.

    Args:
        constraint: vocabulary and bounds.
        max_new_tokens: the limit that ``generate`` is called with.
    """

    def __init__(self, constraint: Constraint, max_new_tokens: int):
        if max_new_tokens < MIN_NEW_TOKENS:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} leaves no room for a constrained answer:"
                f" it needs at least {MIN_NEW_TOKENS}"
            )
        self.constraint = constraint
        self.max_new_tokens = max_new_tokens
        self.start: int | None = None
        self.texts: list[bytearray] = []
        self.done: list[bool] = []
        self.forced: list[list[int]] = []
        self.cut: list[bool] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` (batch, vocabulary) with the refused tokens at -inf."""
        if self.start is None:
            self.start = input_ids.shape[1]
            rows = len(input_ids)
            self.texts, self.done = [bytearray() for _ in range(rows)], [False] * rows
            self.forced, self.cut = [[] for _ in range(rows)], [False] * rows
        else:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                self.done[row] = self.done[row] or token in self.constraint.ends
                self.texts[row] += self.constraint.vocabulary[token]
        used = input_ids.shape[1] - self.start
        for row, text in enumerate(self.texts):
            if not self.done[row]:
                self._restrict(scores[row], row, text, used)
        return scores

    def _restrict(self, scores: Tensor, row: int, text: bytearray, used: int) -> None:
        left = self.max_new_tokens - used
        if not self.forced[row] and (ending := self._ending(text, used, left)):
            self.forced[row] = list(self.constraint.encode(ending))
            self.cut[row] = True
        if self.forced[row]:
            token = self.forced[row].pop(0)
            kept = scores[token].clone()
            scores.fill_(-torch.inf)
            scores[token] = kept
        elif box := _BOX.search(text[-64:]):
            numbers = box[1].decode().replace(" ", "").split(",")
            corner, digits = len(numbers) - 1, numbers[-1]
            low = int(numbers[corner - 2]) + 1 if corner >= 2 else 0
            high = GRID if corner >= 2 else GRID - 1
            for refused in self.constraint.refused_in_box(digits, low, high):
                scores[refused.to(scores.device)] = -torch.inf
        elif left < OBJECT_ROOM:
            # No further object: after a whole one no comma, after an importance no brace with a comma.
            if text.endswith(b"}"):
                refused = self.constraint.leading_comma
            elif _IMPORTANCE.search(text[-24:]):
                refused = self.constraint.leading_brace_comma
            else:
                return
            wanted = scores.argmax()
            scores[refused.to(scores.device)] = -torch.inf
            self.cut[row] |= bool(scores.argmax() != wanted)

    def _ending(self, text: bytearray, used: int, left: int) -> str | None:
        """What to write now because the room for the think text, or for a description, is used up."""
        if used >= self.max_new_tokens // 2 and b"</think>" not in text:
            start, tag = len("<think>") + 1, text.rfind(b"<")
            if len(text) < start or not _whole(text):
                return None
            written = len(text) - tag if tag >= start else 0
            return THINK_END[written:]
        if left <= CLOSING_ROOM and (open_text := _TEXT.search(text)) and open_text[1] and _whole(text):
            escaped = len(open_text[1]) - len(open_text[1].rstrip(b"\\"))
            return ("\\" if escaped % 2 else "") + IMPORTANCE_START
        return None


def _whole(text: bytearray) -> bool:
    """Whether the text ends with a whole character: in a byte-level vocabulary it may end inside one."""
    try:
        text[-4:].lstrip(_CONTINUATION).decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_digit(token: bytes) -> bool:
    return any(48 <= byte <= 57 for byte in token)
