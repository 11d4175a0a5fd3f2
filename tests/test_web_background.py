"""Steps in a thread: what comes through, and how they end."""

import threading
import time
from contextvars import ContextVar

import pytest

from sdg.web.background import in_background


def test_what_is_yielded_comes_through_in_order():
    turn = threading.Lock()
    assert [part for part in in_background((number for number in range(5)), turn) if part is not None] == list(range(5))
    assert not turn.locked()


def test_a_long_step_gives_signs_of_life():
    def slow():
        time.sleep(0.7)
        yield "done"

    parts = list(in_background(slow(), threading.Lock()))
    assert parts[-1] == "done"
    assert None in parts


def test_an_error_is_raised_where_the_steps_are_read():
    def broken():
        yield 1
        raise ValueError("no")

    steps = in_background(broken(), threading.Lock())
    assert next(part for part in steps if part is not None) == 1
    with pytest.raises(ValueError, match="no"):
        list(steps)


def test_the_work_knows_whose_request_it_is():
    request, turn = ContextVar("request"), threading.Lock()

    def work():
        yield request.get()

    request.set("a visitor")
    assert [part for part in in_background(work(), turn) if part] == ["a visitor"]


def test_what_was_left_is_closed_in_its_thread():
    closed = threading.Event()

    def work():
        try:
            while True:
                yield "step"
        finally:
            closed.set()

    steps = in_background(work(), threading.Lock())
    next(steps)
    steps.close()
    assert closed.wait(10)


def test_who_leaves_while_waiting_does_not_go_on_waiting():
    turn, begun = threading.Lock(), []

    def work():
        begun.append(1)
        yield "step"

    before = threading.active_count()
    with turn:
        steps = in_background(work(), turn)
        assert next(steps) is None
        steps.close()
        until = time.monotonic() + 20
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.01)
        assert threading.active_count() == before
    assert not begun


def test_closing_ends_the_work_and_frees_the_turn():
    turn, done = threading.Lock(), []

    def endless():
        while True:
            done.append(1)
            time.sleep(0.02)
            yield "step"

    steps = in_background(endless(), turn)
    assert next(part for part in steps if part is not None) == "step"
    steps.close()
    assert turn.acquire(timeout=10)
    count = len(done)
    time.sleep(0.2)
    assert len(done) == count
