"""A real HTTP server on loopback that speaks the OpenAI chat-completions API and answers by script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One scripted answer. `content` may be a function of the request, to edit what the prompt holds."""

    content: str | Callable[[dict[str, Any]], str] = ""
    status: int = 200
    delay: float = 0.0  # seconds before anything is sent
    raw: str | None = None  # a body sent as it is
    finish: str = "stop"  # "length": the answer was cut
    drip: bool = False  # a body that comes byte by byte and never ends
    headers: dict[str, str] = field(default_factory=dict)


class FakeOpenAI:
    """Serves `script` in order, its last reply for ever; remembers every request."""

    def __init__(self, script: list[Reply], models: tuple[str, ...] = ("fake-1",)) -> None:
        self.script = script
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in fake.models]
                self.answer(200, json.dumps({"object": "list", "data": data}), {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    fake.requests.append(body)
                    fake.keys.append(self.headers.get("Authorization", ""))
                    reply = fake.script.pop(0) if len(fake.script) > 1 else fake.script[0]
                if reply.delay:
                    fake._closing.wait(reply.delay)
                if reply.drip:
                    self.drip()
                elif reply.raw is not None:
                    self.answer(reply.status, reply.raw, reply.headers)
                elif reply.status != 200:
                    error = {"error": {"message": f"scripted {reply.status}", "type": "scripted", "code": None}}
                    self.answer(reply.status, json.dumps(error), reply.headers)
                else:
                    text = reply.content(body) if callable(reply.content) else reply.content
                    self.answer(200, json.dumps(completion(text, body, reply.finish)), reply.headers)

            def drip(self) -> None:
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", "1000000")
                    self.end_headers()
                    while not fake._closing.wait(0.05):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up, as it should

            def answer(self, status: int, text: str, headers: dict[str, str]) -> None:
                data = text.encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up, as it should after its timeout

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        """The base url for OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> FakeOpenAI:
        return self

    def __exit__(self, *args: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def completion(text: str, request: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    """A chat completion as the API returns it."""
    asked = sum(len(message["content"]) for message in request["messages"]) // 4
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": asked, "completion_tokens": len(text) // 4, "total_tokens": asked + len(text) // 4},
    }


def edit(old: str, new: str, title: str = "a scripted edit", tags: str = '["lr"]') -> str:
    """A well-formed answer with one SEARCH/REPLACE block."""
    header = f'```json\n{{"title": "{title}", "reason": "because the script says so", "tags": {tags}}}\n```\n'
    return f"{header}<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
