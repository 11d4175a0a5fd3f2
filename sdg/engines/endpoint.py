"""Text from a vision-language model behind an OpenAI-compatible server: vLLM, SGLang, transformers serve, hosted ones.

The openai SDK speaks HTTP, keeps connections, waits and tries again. What is added here is a bound on the requests that
are under way, the habits of servers that differ, and failures that are one picture's value where work can go on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from sdg.engines import chat
from sdg.engines.base import MAX_NEW_TOKENS, EndpointError, Generation

try:
    import openai
except ImportError as error:  # pragma: no cover - the sentence is all there is to it
    raise ImportError("a model behind a server needs the openai SDK: pip install 'sdg-t2i[endpoint]'") from error

log = logging.getLogger(__name__)

KEY = "SDG_API_KEY"
KEYS_OF_HOSTS = {
    "api.openai.com": "OPENAI_API_KEY",
    "generativelanguage.googleapis.com": "GEMINI_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
    "router.huggingface.co": "HF_TOKEN",
}
"""Where a key is looked for besides :data:`KEY`: each one goes to its own host and nowhere else."""


class EndpointEngine:
    """A model of an OpenAI-compatible server as an :class:`~sdg.engines.base.Engine`.

    Timed-out and refused connections, 408, 409, 429 and 5xx are tried again after a jittered, growing wait, or after
    what ``Retry-After`` says. A picture that fails for good is a :class:`~sdg.engines.base.Generation` with ``error``;
    what would fail every picture raises. Calls are safe from any thread, one with a running event loop included.

    Args:
        base_url: of the API, mostly ending in ``/v1``.
        model: as the server names it.
        api_key: None takes the variable ``SDG_API_KEY``, then the one of :data:`KEYS_OF_HOSTS` for the host.
        concurrency: requests under way at a time, over all calls.
        max_new_tokens: longest answer, in tokens.
        temperature: 0 is greedy; left out for models that refuse it.
        structured: ask for JSON by a schema, for models that were not trained to write the two blocks. Left out where
            the server refuses, and by :meth:`stream`.
        timeout: seconds that the server may be silent, in each try.
        max_retries: further tries of a request.
        extra_body: more fields of the request, for example ``{"reasoning_effort": "low"}``.

    Raises:
        ValueError: for a value out of range, and for a ``base_url`` that is none or that holds a key.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float | None = 0.0,
        structured: bool = False,
        timeout: float = 300.0,
        max_retries: int = 5,
        extra_body: Mapping[str, Any] | None = None,
    ):
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("max_retries", max_retries, 0),
        ):
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        if not timeout > 0:
            raise ValueError(f"timeout={timeout} must be more than 0 seconds")
        self._variable, key = _key(base_url, api_key)
        self.base_url = base_url
        self.name = model
        self.concurrency = concurrency
        self.max_new_tokens = max_new_tokens
        self.timeout = timeout
        self.max_retries = max_retries
        self._options: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "extra_body": extra_body,
        }
        self._structured = structured
        self._unwanted: frozenset[str] = frozenset()  # options that this server refuses
        self._hidden = key
        self._met = False  # whether the server has answered anything
        self._slots = asyncio.Semaphore(concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=max_retries
        )

    def __repr__(self) -> str:
        return f"EndpointEngine({self.base_url!r}, {self.name!r}, concurrency={self.concurrency})"

    def check(self) -> None:
        """Ask the server for its models, to learn early that it cannot be reached or that it refuses the key.

        Raises:
            EndpointError: saying so. A server that lists no models passes.
        """
        asyncio.run_coroutine_threadsafe(self._check(), _loop()).result()

    def submit(self, image: Image.Image, prompt: str) -> Future[Generation]:
        """Begin one answer; it waits for its turn among ``concurrency``. Cancelling the future stops the request."""
        return asyncio.run_coroutine_threadsafe(self._answer(image, prompt), _loop())

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Generation]:
        """Answer a batch, ``concurrency`` at a time: one RGB picture and one instruction each.

        Returns:
            as many answers, in the same order; ``seconds`` is each request's own, waits between tries included.

        Raises:
            EndpointError: for what would fail every picture; the requests under way are given up.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
        begun = [self.submit(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
        try:
            done, _ = concurrent.futures.wait(begun, return_when=concurrent.futures.FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in begun]
        finally:
            for future in begun:
                future.cancel()

    def stream(self, image: Image.Image, prompt: str) -> Generator[str, None, Generation]:
        """Answer one picture piece by piece. Closing the iterator stops the request.

        An answer that breaks off ends in a :class:`~sdg.engines.base.Generation` with ``error``.

        Raises:
            EndpointError: for what would fail every picture.
        """
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        future = asyncio.run_coroutine_threadsafe(self._stream(image, prompt, pieces.put), _loop())
        future.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            return future.result()
        finally:
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

    async def _answer(self, image: Image.Image, prompt: str) -> Generation:
        async with self._slots:
            started = time.perf_counter()
            try:
                completion = await self._ask(await asyncio.to_thread(chat.data_url, image), prompt)
                text, finished, error = chat.read_completion(completion)
            except Exception as failure:  # a server may answer anything, and the SDK raises what it likes
                completion, text, finished, error = None, "", False, await self._failure(failure)
            usage = getattr(completion, "usage", None)
            return Generation(text, *chat.tokens(usage), time.perf_counter() - started, finished, error)

    async def _stream(self, image: Image.Image, prompt: str, put: Callable[[str], None]) -> Generation:
        async with self._slots:
            started = time.perf_counter()
            text, begun, thinking, usage, reason, error = "", False, False, None, None, None
            try:
                url = await asyncio.to_thread(chat.data_url, image)
                async with await self._ask(url, prompt, stream=True) as chunks:
                    begun = True
                    async for chunk in chunks:
                        usage = getattr(chunk, "usage", None) or usage
                        if not getattr(chunk, "choices", None):
                            continue
                        thought, piece = chat.message_text(chunk.choices[0].delta)
                        # A server that reads the think block out of the answer sends it beside: it goes back in.
                        if thought:
                            piece = ("" if thinking else "<think>") + thought
                        elif piece and thinking:
                            piece = "</think>" + piece
                        if piece:
                            thinking = bool(thought)
                            text += piece
                            put(piece)
                        reason = chunk.choices[0].finish_reason or reason
            except Exception as failure:
                broken = f"the answer broke off ({self._said(failure.__cause__ or failure)})"
                error = broken if begun else await self._failure(failure)
            else:
                error = chat.withheld(reason) if reason else "the server ended the stream before the answer was whole"
            seconds = time.perf_counter() - started
            return Generation(text, *chat.tokens(usage), seconds, error is None and reason != "length", error)

    async def _ask(self, url: str, prompt: str, stream: bool = False) -> Any:
        """One request; again without the option where the server refuses one that it can do without."""
        options = {**self._options, "stream": stream}
        if stream:
            options["stream_options"] = {"include_usage": True}
        elif self._structured:
            options["response_format"] = chat.RESPONSE_FORMAT
        dropped: set[str] = set()
        while True:
            request = {k: v for k, v in options.items() if v is not None and k not in self._unwanted | dropped}
            if "max_tokens" not in request:
                request["max_completion_tokens"] = self.max_new_tokens
            turn = chat.messages(url, prompt, as_json="response_format" in request)
            try:
                answer = await self._client.chat.completions.create(model=self.name, messages=turn, **request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = chat.refused_option(f"{error} {error.body}", error.code, request)
                if name is None:
                    raise
                dropped.add(name)
                continue
            self._met = True
            if dropped - self._unwanted:
                log.info("%s does without %s: the server refuses it", self.name, ", ".join(sorted(dropped)))
                self._unwanted |= dropped
            return answer

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
        return EndpointError(f"{self.base_url} answers no picture with {self.name!r} ({said}): {out}")

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
