"""How many may wait, and how many places of the queue one visitor may hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import count
from typing import Any, TypeVar

import gradio as gr

T = TypeVar("T")

WAITING = 64
"""Requests that may wait; the next one is told to come back."""

PLACES = 4
"""Requests of one visitor that may wait."""


def bounded_queue(page: gr.Blocks, waiting: int = WAITING, places: int = PLACES) -> None:
    """Bound the page's queue, as a whole and for every visitor.

    Gradio bounds the whole only, so that one visitor could fill it: what a visitor holds is counted here. A visitor is
    a session, which a browser's tab and a client have one of; requests without one are told apart by their address. A
    program that invents sessions is held by the bound on the whole alone. Nobody is answered past the queue.

    Args:
        page: whose queue.
        waiting: requests of all visitors that may wait.
        places: requests of one visitor that may wait.
    """
    page.queue(max_size=waiting, api_open=False)
    queue = page._queue
    push = queue.push

    async def bounded(body: Any, request: Any, username: Any) -> Any:
        def same(event: Any) -> bool:
            if body.session_hash is not None:
                return bool(event.session_hash == body.session_hash)
            return event.session_hash == event._id and _address(event.request) == _address(request)

        refused = _refusal(page, same, places)
        if refused is not None:
            return False, refused, "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = bounded  # type: ignore[method-assign]


def check_room(page: gr.Blocks, visitor: str | None) -> None:
    """Refuse a question for which the queue has no room, before the page says that its turn comes.

    Args:
        page: whose queue.
        visitor: the session.

    Raises:
        gr.Error: in a sentence for the visitor.
    """
    refused = _refusal(page, lambda event: event.session_hash == visitor, PLACES)
    if refused is not None:
        raise gr.Error(refused, title="The page is full", print_exception=False)


def _refusal(page: gr.Blocks, is_mine: Callable[[Any], bool], places: int) -> str | None:
    line = [event for of_one in page._queue.event_queue_per_concurrency_id.values() for event in of_one.queue]
    waiting = page._queue.max_size
    if waiting is not None and len(line) >= waiting:
        return f"{waiting} requests are waiting already: please try again in a minute."
    if sum(map(is_mine, line)) >= places:
        return f"{places} of your requests are waiting already: wait for one of them first."
    return None


def before(page: gr.Blocks, line: str) -> int:
    """How many requests a new one finds before it, those at work included.

    Args:
        page: whose queue.
        line: the ``concurrency_id`` of the requests that take turns.
    """
    found = page._queue.event_queue_per_concurrency_id.get(line)
    return 0 if found is None else len(found.queue) + found.current_concurrency


class Latest:
    """Which question of a visitor is the last one: those before it need no answer any more.

    Gradio can cancel the event before, but a question that comes in at that moment may be lost with it.

    Args:
        visitors: how many are remembered; one who is forgotten is answered.
    """

    def __init__(self, visitors: int = 1024):
        self._visitors = visitors
        self._last: OrderedDict[str, str] = OrderedDict()
        self._count = count(1)

    def ask(self, visitor: str | None) -> str:
        """The name of a new question of that visitor, which is the last one from now on."""
        question, visitor = str(next(self._count)), visitor or ""
        self._last[visitor] = question
        self._last.move_to_end(visitor)
        while len(self._last) > self._visitors:
            self._last.popitem(last=False)
        return question

    def is_last(self, visitor: str | None, question: str) -> bool:
        """Whether that visitor has asked nothing since."""
        return self._last.get(visitor or "", question) == question


def while_wanted(views: Generator[T], wanted: Callable[[], bool], nothing: T) -> Generator[T]:
    """The views of a question up to where its visitor stops it or asks anew: none comes after that of another event.

    Args:
        views: closed at the end.
        wanted: whether the question is the visitor's last one.
        nothing: a view that changes nothing: Gradio shows the last one again when a question ends.
    """
    with closing(views):
        for view in views:
            if wanted():
                yield view
    if not wanted():
        yield nothing


def _address(request: Any) -> str | None:
    client = getattr(request, "client", None)
    return client.host if client else None
