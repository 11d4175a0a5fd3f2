"""What is said to a chat server and what it answers: pictures as addresses, the JSON form, habits that differ.

Nothing here opens a connection: :mod:`sdg.engines.endpoint` does.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from sdg.engines.images import fit

MAX_PNG = 4 * 2**20
"""Bytes of a picture that is sent as it is: above it a JPEG goes, for hosted models refuse more than 5 to 20 MB."""

JSON_FORM = (
    "Form of the answer: one JSON object in place of the two tagged blocks that are described below, "
    '{"think": "the text of the first block", "answer": [the list of the second block]}\n\n'
)
_ITEM: dict[str, Any] = {
    "box_2d": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
    "label": {"type": "string", "enum": ["artifact", "misalignment"]},
    "description": {"type": "string"},
    "importance": {"type": "integer"},
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with exactly these fields, as servers' strict mode wants it."""
    fields = {"properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "object", **fields}


RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "defects",
        "strict": True,
        "schema": _object({"think": {"type": "string"}, "answer": {"type": "array", "items": _object(_ITEM)}}),
    },
}

OPTIONAL = {
    "response_format": ("response_format", "response format", "json_schema", "schema", "structured", "grammar"),
    "stream_options": ("stream_options", "include_usage"),
    "temperature": ("temperature",),
    "max_tokens": ("max_tokens",),
}
"""Options that a request can do without, and how a refusal names them."""

_SPECIAL = re.compile(r"<\|(\w+)\|>")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*|\s*```\s*\Z")
_NO_MODEL = re.compile(
    r"\bmodel\W[^.]{0,120}\b(not exist|not found|not available|unknown)|\b(unknown|invalid|no such) model|\bpinned to\b"
    r"|not a multimodal model|at most 0 image|not support (image|vision)|image_url is only supported",
    re.IGNORECASE,
)


def data_url(image: Image.Image) -> str:
    """A picture, scaled to at most 1024 pixels, as an address: PNG, or JPEG where that takes more than MAX_PNG."""
    image = fit(image)
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG", compress_level=1)  # the default takes 2.5 times as long, for a tenth less
    if buffer.tell() > MAX_PNG:
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def plain(text: str) -> str:
    """A text with marks such as ``<|im_end|>`` broken up: one would end the turn, or stand for a picture."""
    return _SPECIAL.sub(r"< |\1|>", text)


def messages(url: str, prompt: str, as_json: bool) -> list[Any]:
    """One user turn: the picture, then the instruction.

    Args:
        url: of the picture, from :func:`data_url`.
        prompt: the instruction; it is made :func:`plain`.
        as_json: ask for :data:`JSON_FORM`.
    """
    text = (JSON_FORM if as_json else "") + plain(prompt)
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def refused_option(words: str, code: str | None, request: Mapping[str, Any]) -> str | None:
    """The option of ``request`` that a server's 400 or 422 is about, or None where it is about something else.

    Args:
        words: the server's message.
        code: its code of the error, where it gives one.
        request: what was sent. Where the refusal names no option, the schema is suspected.
    """
    message = words.lower()
    for name, marks in OPTIONAL.items():
        if name in request and any(mark in message for mark in marks):
            return name
    return "response_format" if "response_format" in request and not names_no_model(words, code) else None


def names_no_model(words: str, code: str | None) -> bool:
    """Whether a refusal says that there is no such model or that it takes no pictures; servers differ in its status."""
    return code in ("model_not_found", "invalid_model") or _NO_MODEL.search(words) is not None


def read_completion(completion: Any) -> tuple[str, bool, str | None]:
    """The answer of a completion.

    Args:
        completion: as the SDK gives it, whatever the server sent: nothing is taken for granted.

    Returns:
        the text in the two blocks, whether the model ended it, and why there is none (None where there is one).
    """
    choices = getattr(completion, "choices", None) or [None]
    if getattr(choices[0], "message", None) is None:
        what = f"{completion!r:.80}" if isinstance(completion, str) else "no message"
        return "", False, f"the server sent {what} instead of an answer"
    choice = choices[0]
    thought, text = message_text(choice.message)
    text = _as_blocks(text)
    if thought and "think>" not in text.lower():
        text = f"<think>{thought}</think>\n{text}"
    refusal = getattr(choice.message, "refusal", None)
    error = f"the model refused: {refusal}" if refusal else withheld(choice.finish_reason)
    return text, error is None and choice.finish_reason != "length", error


def message_text(message: Any) -> tuple[str, str]:
    """Think text that the server sends beside the answer, and the answer, which may be a list of parts."""
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
    content = getattr(message, "content", None) or ""
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else vars(part) for part in content]
        content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return (thought if isinstance(thought, str) else ""), str(content)


def withheld(finish_reason: str | None) -> str | None:
    """Why an answer that ended for this reason is none, or None."""
    return "the server withheld the answer (content_filter)" if finish_reason == "content_filter" else None


def tokens(usage: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt, picture included, and of the answer, where the server counts them."""
    return getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)


def _as_blocks(text: str) -> str:
    """An answer in the JSON form as the two blocks; any other text as it is."""
    try:
        answer = json.loads(_FENCE.sub("", text))
    except (ValueError, RecursionError):
        return text
    if not isinstance(answer, dict) or not isinstance(answer.get("answer"), list):
        return text
    think = str(answer.get("think") or "").replace("<", "&lt;")
    items = json.dumps(answer["answer"], ensure_ascii=False).replace("<", "\\u003c")
    return f"<think>{think}</think>\n<answer>{items}</answer>"
