"""Long steps in a thread, so that a visitor who stops or leaves is let go at once and not when the step ends."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import closing
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Turn(Protocol):
    """A lock or a semaphore."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: Any) -> Any: ...


PATIENCE = 0.2
"""Seconds between two signs of life. Gradio can end a generator only where it yields, and loses the next request of a
visitor who asks anew while it waits for that."""


def in_background(steps: Generator[T], turn: Turn) -> Generator[T | None]:
    """What a generator yields, from a thread; None whenever there is nothing new for a while.

    Closing it ends the thread at the generator's next step. Until then ``turn`` is held, so that nobody else uses the
    model.

    Args:
        steps: the work.
        turn: held while there is work. Who leaves while waiting for it does not go on waiting.

    Raises:
        Exception: what the generator raises.
    """
    news: SimpleQueue[tuple[str, T | Exception | None]] = SimpleQueue()
    left = threading.Event()

    def work() -> None:
        while not turn.acquire(timeout=PATIENCE):
            if left.is_set():
                return
        try:
            with closing(steps):
                while not left.is_set():
                    try:
                        news.put(("step", next(steps)))
                    except StopIteration:
                        break
            news.put(("end", None))
        except Exception as error:
            news.put(("error", error))
        finally:
            turn.release()

    # With the context of the request, by which ZeroGPU knows the visitor.
    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        while True:
            try:
                kind, value = news.get(timeout=PATIENCE)
            except Empty:
                yield None
                continue
            if kind == "end":
                return
            if isinstance(value, Exception):
                raise value
            yield value
    finally:
        left.set()
