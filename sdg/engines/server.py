"""A model behind an OpenAI-compatible server: its address and key, the client, and what its failures mean.

What answers through a server is a :class:`Server`: :class:`~sdg.engines.endpoint.EndpointEngine` asks for text,
:class:`~sdg.refine.endpoint.EndpointEditor` for pictures.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from sdg.engines import chat
from sdg.engines.base import EndpointError

try:
    import openai
except ImportError as error:  # pragma: no cover - the sentence is all there is to it
    raise ImportError("a model behind a server needs the openai SDK: pip install 'sdg-t2i[endpoint]'") from error

T = TypeVar("T")

KEY = "SDG_API_KEY"
KEYS_OF_HOSTS = {
    "api.openai.com": "OPENAI_API_KEY",
    "generativelanguage.googleapis.com": "GEMINI_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
    "router.huggingface.co": "HF_TOKEN",
}
"""Where a key is looked for besides :data:`KEY`: each one goes to its own host and nowhere else."""


class Server:
    """One model of a server, for requests from any thread, one with a running event loop included.

    Timed-out and refused connections, 408, 409, 429 and 5xx are tried again after a jittered, growing wait, or after
    what ``Retry-After`` says: that is the SDK's work.

    Args:
        base_url: of the API, mostly ending in ``/v1``.
        model: as the server names it.
        api_key: None takes the variable ``SDG_API_KEY``, then the one of :data:`KEYS_OF_HOSTS` for the host.
        concurrency: requests under way at a time, over all calls.
        timeout: seconds that the server may be silent, in each try.
        max_retries: further tries of a request.

    Raises:
        ValueError: for a value out of range, and for a ``base_url`` that is none or that holds a key.
    """

    does: ClassVar[str] = "answers"
    """What it does with a picture, in messages."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None,
        concurrency: int,
        timeout: float,
        max_retries: int,
    ):
        for name, value, least in (("concurrency", concurrency, 1), ("max_retries", max_retries, 0)):
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if not timeout > 0:
            raise ValueError(f"timeout={timeout} must be more than 0 seconds")
        self._variable, key = _key(base_url, api_key)
        self.base_url = base_url
        self.name = model
        self.concurrency = concurrency
        self.timeout = timeout
        self.max_retries = max_retries
        self._hidden = key
        self._met = False  # whether the server has answered anything
        self._slots = asyncio.Semaphore(concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=max_retries
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, {self.name!r}, concurrency={self.concurrency})"

    def check(self) -> None:
        """Ask the server for its models, to learn early that it cannot be reached or that it refuses the key.

        Raises:
            EndpointError: saying so. A server that lists no models passes.
        """
        self._start(self._check()).result()

    @staticmethod
    def _start(request: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a request; cancelling the future stops it."""
        return asyncio.run_coroutine_threadsafe(request, _loop())

    @staticmethod
    def _results(begun: Sequence[Future[T]]) -> list[T]:
        """What they come to, in order; where one raises, the others are given up."""
        try:
            done, _ = concurrent.futures.wait(begun, return_when=concurrent.futures.FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in begun]
        finally:
            for future in begun:
                future.cancel()

    async def _check(self) -> None:
        try:
            await self._client.with_options(max_retries=1, timeout=min(self.timeout, 20)).models.list()
        except openai.APIStatusError as error:
            self._met = True
            if error.status_code in (401, 403):
                raise await self._refusal(error) from None
        except openai.APIConnectionError as error:
            raise self._nobody(error) from None
        except Exception:  # it answers, if with something that is no list of models
            self._met = True
        else:
            self._met = True

    async def _failure(self, error: Exception) -> str:
        """Why this picture has no answer; raises where no other one would have."""
        if isinstance(error, openai.APITimeoutError):
            return f"{self.base_url} gave no answer within {self.timeout:g} seconds{self._tries()}"
        if isinstance(error, openai.APIConnectionError):
            if not self._met:
                raise self._nobody(error) from None
            return f"the connection to {self.base_url} broke{self._tries()} ({self._said(error.__cause__ or error)})"
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            hopeless = status in (401, 402, 404, 405) or (status == 403 and not self._met)
            no_model = status in (400, 422) and chat.names_no_model(f"{error} {error.body}", error.code)
            if hopeless or no_model or error.code == "insufficient_quota":
                raise await self._refusal(error) from None
            self._met = True
            return f"{self.base_url} answered {status}{self._tries() if status >= 429 else ''}: {self._said(error)}"
        return f"{self.base_url} sent what is no answer ({self._said(error)})"

    async def _refusal(self, error: openai.APIStatusError) -> EndpointError:
        """What a person must do about a request that can never succeed."""
        said = f"{error.status_code}: {self._said(error)}"
        if error.status_code in (401, 403):
            key = "refuses its key" if self._hidden else "wants a key"
            out = f"set {self._variable} in the environment, or pass api_key="
            return EndpointError(f"{self.base_url} {key} for {self.name!r} ({said}): {out}")
        if error.status_code in (402, 429):
            return EndpointError(f"{self.base_url} wants to be paid for {self.name!r} first ({said})")
        try:
            listed = await self._client.with_options(max_retries=0, timeout=10).models.list()
            offered = [model.id for model in listed.data]
        except Exception:  # the list is a courtesy
            offered = []
        if self.name in offered or not offered:
            out = "check base_url (most end in /v1), and that this model is there and takes pictures"
        else:
            out = f"it offers {', '.join(offered[:8])}{' …' if len(offered) > 8 else ''}"
        return EndpointError(f"{self.base_url} {self.does} no picture with {self.name!r} ({said}): {out}")

    def _nobody(self, error: openai.APIConnectionError) -> EndpointError:
        cause = self._said(error.__cause__ or error)
        return EndpointError(
            f"nothing answers at {self.base_url} for {self.name!r} ({cause}): start the server, or correct base_url"
        )

    def _tries(self) -> str:
        return f" in {self.max_retries + 1} tries" if self.max_retries else ""

    def _said(self, error: BaseException) -> str:
        """The server's own words, or the kind of error; never the key, even where the server repeats it."""
        body = getattr(error, "body", None)
        said: Any = body
        for name in ("message", "detail", "error"):
            if isinstance(body, Mapping) and body.get(name):
                said = body[name]
                break
        words = " ".join((str(said or error) or type(error).__name__).split())
        return (words.replace(self._hidden, "***") if len(self._hidden) > 3 else words)[:300]


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop that all requests run on, in a thread of its own: callers may be in one that runs a loop already."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="sdg-endpoint", daemon=True).start()
    return loop


def _key(base_url: str, api_key: str | None) -> tuple[str, str]:
    """The variable that holds the key for this address, and the key, which may be empty."""
    address = urlsplit(base_url)
    if address.username or address.password or address.query:
        raise ValueError("base_url must not hold a user, a password or a query: a key goes into api_key=")
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"base_url={base_url!r} is not the address of a server, such as http://localhost:8000/v1")
    variable = KEYS_OF_HOSTS.get(address.hostname, KEY)
    return variable, api_key or os.environ.get(KEY) or os.environ.get(variable) or ""
