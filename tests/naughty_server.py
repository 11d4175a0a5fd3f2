"""A server of chats and image edits on a real socket that answers as a test says: late, refused, cut off, rubbish."""

from __future__ import annotations

import base64
import email
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Reply:
    """What the server sends: a body (JSON values, or bytes as they are), after ``delay`` seconds."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None  # bytes after which the connection is closed, of a body that promises more
    stream: bool = False  # the body is lines of an event stream


def said(text: Any, finish: str | None = "stop", **message: Any) -> Reply:
    """An answer as a well-behaved server gives it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 1100, "completion_tokens": 42, "total_tokens": 1142}
    return Reply(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    )


def error(status: int, message: str = "no", **more: Any) -> Reply:
    """A refusal in OpenAI's form."""
    return Reply({"error": {"message": message, **more}}, status)


def streamed(*deltas: dict[str, Any] | str, finish: str | None = "stop", done: bool = True) -> Reply:
    """An event stream: one chunk a delta, then the reason that it ended and the usage."""
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": d} if isinstance(d, str) else d, "finish_reason": None}]}
        for d in deltas
    ]
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        chunks.append({"choices": [], "usage": {"prompt_tokens": 1100, "completion_tokens": 42, "total_tokens": 1142}})
    lines = [f"data: {json.dumps({'id': '1', 'object': 'chat.completion.chunk', **chunk})}\n\n" for chunk in chunks]
    return Reply("".join([*lines, "data: [DONE]\n\n"] if done else lines).encode(), stream=True)


class NaughtyServer:
    """Answers each request with what ``reply(request, number)`` returns; remembers what came.

    Attributes:
        reply: from a request, and its number from 0, to a :class:`Reply`.
        requests: in the order that they came: the JSON of a chat; of an image edit the form's fields, as text, or the
            list of the files' bytes.
        headers: of the last request.
        busiest: most requests at a time.
        times: when each request came, in seconds.
    """

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]):
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.headers: dict[str, str] = {}
        self.models: Reply = Reply({"object": "list", "data": [{"id": "m", "object": "model"}]})
        self.busy = self.busiest = self.hung_up = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.send(server.models if self.path == "/v1/models" else error(404, "no such page"))

            def do_POST(self) -> None:
                body = READERS.get(self.path, _form)(self)
                if self.path not in READERS:
                    return self.send(error(404, "no such page"))
                with server._lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    server.times.append(time.monotonic())
                    server.headers = {name.lower(): value for name, value in self.headers.items()}
                    server.busy += 1
                    server.busiest = max(server.busiest, server.busy)
                try:
                    reply = server.reply(body, number)
                    time.sleep(reply.delay)
                finally:
                    with server._lock:
                        server.busy -= 1
                return self.send(reply)

            def send(self, reply: Reply) -> None:
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                kind = "text/event-stream" if reply.stream else "application/json"
                for name, value in {"Content-Type": kind, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    for start in range(0, len(body), 4096) if reply.cut is None else [0]:
                        self.wfile.write(body[start : start + 4096] if reply.cut is None else body[: reply.cut])
                        self.wfile.flush()
                except OSError:
                    server.hung_up += 1
                if reply.cut is not None:
                    self.close_connection = True

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator[NaughtyServer]:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


def _sent(handler: BaseHTTPRequestHandler) -> bytes:
    return handler.rfile.read(int(handler.headers["Content-Length"]))


def _form(handler: BaseHTTPRequestHandler) -> dict[str, Any]:
    """The fields of a form: text, or the list of the files' bytes; ``image`` and ``image[]`` are one."""
    message = email.message_from_bytes(f"Content-Type: {handler.headers['Content-Type']}\n\n".encode() + _sent(handler))
    fields: dict[str, Any] = {}
    for part in message.get_payload() if message.is_multipart() else []:
        name = str(part.get_param("name", header="content-disposition")).removesuffix("[]")
        content = part.get_payload(decode=True)
        if part.get_filename():
            fields.setdefault(name, []).append(content)
        else:
            fields[name] = content.decode()
    return fields


READERS: dict[str, Callable[[BaseHTTPRequestHandler], dict[str, Any]]] = {
    "/v1/chat/completions": lambda handler: json.loads(_sent(handler)),
    "/v1/images/edits": _form,
}


def drawn(image: Image.Image | bytes, **more: Any) -> Reply:
    """A picture (or the bytes of a file) as a well-behaved server answers an edit."""
    data = image if isinstance(image, bytes) else png(image)
    return Reply({"created": 1, "data": [{"b64_json": base64.b64encode(data).decode(), **more}]})


def png(image: Image.Image) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def text_of(request: dict[str, Any]) -> str:
    """The instruction of a request."""
    return "".join(part["text"] for part in request["messages"][0]["content"] if part["type"] == "text")


def picture_of(request: dict[str, Any]) -> Image.Image:
    """The picture of a request."""
    url = next(part["image_url"]["url"] for part in request["messages"][0]["content"] if part["type"] == "image_url")
    return Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))
