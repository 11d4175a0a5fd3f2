"""How far a long job is: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from sdg.cli.shared import err

LOG_SECONDS = 60.0
"""How often a job without a terminal says where it is."""


class Advance:
    """Progress of a job, on stderr. Use it in a ``with`` statement.

    Args:
        what: what is counted, in the plural.
        total: how many there are; None where nobody knows.
        shown: False says nothing at all.
    """

    def __init__(self, what: str, total: int | None = None, shown: bool = True) -> None:
        self.what, self.total, self.shown = what, total, shown
        self.done = self.failed = 0
        self._started = self._said = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not (shown and err.is_terminal),
        )
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Advance:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._bar.stop()

    def restart(self) -> None:
        """Measure the speed from here on: what came before was getting ready."""
        self._started = time.monotonic()

    def skip(self) -> None:
        """One less to do."""
        if self.total is not None:
            self.total -= 1
            self._bar.update(self._task, total=self.total)

    def add(self, failed: bool = False) -> None:
        """One more is done."""
        self.done, self.failed = self.done + 1, self.failed + failed
        self._bar.update(self._task, advance=1, description=self._words())
        now = time.monotonic()
        if self.shown and not err.is_terminal and now - self._said >= LOG_SECONDS:
            self._said = now
            of = "" if self.total is None else f" of {self.total}"
            err.print(Text(f"{self.done}{of} {self._words()}"), soft_wrap=True)

    def _words(self) -> str:
        speed = self.done / max(time.monotonic() - self._started, 1e-9)
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.what}{failed}, {speed:.3g} a second"
