"""Text from a vision-language model behind an OpenAI-compatible server: vLLM, SGLang, transformers serve, hosted ones.

The openai SDK speaks HTTP, keeps connections, waits and tries again. What is added here is a bound on the requests that
are under way, the habits of servers that differ, and failures that are one picture's value where work can go on.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from PIL import Image

from sdg.engines import chat
from sdg.engines.base import MAX_NEW_TOKENS, Generation
from sdg.engines.server import Server, openai

log = logging.getLogger(__name__)


class EndpointEngine(Server):
    """A model of an OpenAI-compatible server as an :class:`~sdg.engines.base.Engine`.

    Timed-out and refused connections, 408, 409, 429 and 5xx are tried again after a jittered, growing wait, or after
    what ``Retry-After`` says. A picture that fails for good is a :class:`~sdg.engines.base.Generation` with ``error``;
    what would fail every picture raises. Calls are safe from any thread, one with a running event loop included.

    Args:
        base_url: of the API, mostly ending in ``/v1``.
        model: as the server names it.
        api_key: None takes the variable ``SDG_API_KEY``, then the host's own, as
            :data:`~sdg.engines.server.KEYS_OF_HOSTS` has it.
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
        super().__init__(
            base_url, model, api_key=api_key, concurrency=concurrency, timeout=timeout, max_retries=max_retries
        )
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
        self.max_new_tokens = max_new_tokens
        self._options: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "extra_body": extra_body,
        }
        self._structured = structured
        self._unwanted: frozenset[str] = frozenset()  # options that this server refuses

    def submit(self, image: Image.Image, prompt: str) -> Future[Generation]:
        """Begin one answer; it waits for its turn among ``concurrency``. Cancelling the future stops the request."""
        return self._start(self._answer(image, prompt))

    def generate(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Generation]:
        """Answer a batch, ``concurrency`` at a time: one RGB picture and one instruction each.

        Returns:
            as many answers, in the same order; ``seconds`` is each request's own, waits between tries included.

        Raises:
            EndpointError: for what would fail every picture; the requests under way are given up.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
        return self._results([self.submit(image, prompt) for image, prompt in zip(images, prompts, strict=True)])

    def stream(self, image: Image.Image, prompt: str) -> Generator[str, None, Generation]:
        """Answer one picture piece by piece. Closing the iterator stops the request.

        An answer that breaks off ends in a :class:`~sdg.engines.base.Generation` with ``error``.

        Raises:
            EndpointError: for what would fail every picture.
        """
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        future = self._start(self._stream(image, prompt, pieces.put))
        future.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            return future.result()
        finally:
            future.cancel()

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
