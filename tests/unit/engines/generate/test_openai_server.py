from __future__ import annotations

import contextlib
import json
import pickle
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import GENERATORS
from sdrrl_nemo.data.engines.generate.openai_server import OpenAiServerGenerator
from sdrrl_nemo.data.execution.stage_runner import Runner, Source
from sdrrl_nemo.data.stages.generate import Generate

Reply = tuple[int, bytes, dict[str, str]]


class Server(ThreadingHTTPServer):
    """Speaks the protocol: lists one model and answers in capitals, unless ``trouble`` has something else to say."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.tries: Counter[str] = Counter()
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.trouble: Callable[[str, int], Reply | str | None] = lambda question, attempt: None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self._send(200, json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}).encode(), {})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"]
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.tries[question] += 1
            attempt = server.tries[question]
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        trouble = server.trouble(question, attempt)
        with server.lock:
            server.busy -= 1
        if trouble == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(trouble, tuple):
            self._send(*trouble)
        else:
            words = question.upper().split()
            cut = words[: body["max_tokens"]]
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": " ".join(cut)},
                "finish_reason": trouble or ("stop" if cut == words else "length"),
            }
            reply = {"choices": [choice], "usage": {"completion_tokens": len(cut)}}
            self._send(200, json.dumps(reply).encode(), {})

    def _send(self, state: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(state)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):  # a client that has given up
            self.end_headers()
            self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def engine(server: Server, **options: Any) -> OpenAiServerGenerator:
    """The engine with waits of milliseconds."""
    options = {"model": "tiny", "backoff_s": 0.001, "timeout_s": 20.0} | options
    return OpenAiServerGenerator(base_url=server.url, **options)


def error(state: int, message: str, **headers: str) -> Reply:
    """An error in the protocol's form."""
    body = {"error": {"message": message, "type": "x", "code": state}}
    return state, json.dumps(body).encode(), {k.replace("_", "-"): v for k, v in headers.items()}


def test_order_is_kept_and_requests_are_bounded(server: Server) -> None:
    def slower_first(question: str, attempt: int) -> None:
        time.sleep(0.05 if question.endswith(("0", "1", "2")) else 0.005)

    server.trouble = slower_first
    questions = [f"question {n}" for n in range(24)]
    assert engine(server, concurrency=4).generate(questions) == [q.upper() for q in questions]
    assert server.most_busy == 4
    assert engine(server).generate([]) == []


def test_what_is_asked(server: Server) -> None:
    first = engine(server, max_new_tokens=7, seed=3, extra={"top_k": 5})
    first.generate(["b a", "c"])
    second = engine(server, max_new_tokens=7, seed=3, extra={"top_k": 5}, concurrency=1)
    second.generate(["c", "d", "b a"])
    by_question = {r["messages"][0]["content"]: r for r in server.requests[:2]}
    sent = by_question["b a"]
    assert {k: sent[k] for k in ("model", "max_tokens", "temperature", "top_p", "top_k")} == {
        "model": "tiny", "max_tokens": 7, "temperature": 0.0, "top_p": 1.0, "top_k": 5,
    }  # fmt: skip
    assert sent["messages"] == [{"role": "user", "content": "b a"}]
    # A question's seed follows from it alone, not from its company.
    assert [r for r in server.requests[2:] if r["messages"][0]["content"] in by_question] == [by_question["c"], sent]
    assert sent["seed"] != by_question["c"]["seed"]


@pytest.mark.parametrize(("mode", "text"), [("keep", "ONE. TWO"), ("trim", "ONE."), ("drop", "")])
def test_an_answer_cut_at_the_limit(server: Server, mode: str, text: str) -> None:
    cut = engine(server, max_new_tokens=2, unfinished=mode)
    assert cut.generate(["one. two three", "one."]) == [text, "ONE."]
    assert [a.finished for a in cut.answer(["one. two three", "one."])] == [False, True]


def test_filtered_content_is_no_answer(server: Server) -> None:
    server.trouble = lambda question, attempt: "content_filter"
    assert engine(server).generate(["a"]) == [""]


BROKEN: dict[str, Reply | str] = {
    "server error": error(500, "boom"),
    "overloaded": error(503, "busy"),
    "not JSON": (200, b'{"choices": [', {}),
    "not UTF-8": (200, b"\xff\xfe", {}),
    "other form": (200, b'{"answer": 1}', {}),
    "cut short": (200, b"{}", {"Content-Length": "90", "Connection": "close"}),
    "dropped": "drop",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_may_pass_is_tried_again(server: Server, kind: str) -> None:
    server.trouble = lambda question, attempt: BROKEN[kind] if question == "b" and attempt < 3 else None
    assert engine(server, timeout_s=0.5 if kind == "cut short" else 20.0).generate(["a", "b"]) == ["A", "B"]
    assert server.tries == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("server error", r"HTTP 500 boom \(3 tries\).*asked: 'b'"),
        ("not JSON", r"the reply is not valid JSON .*\(3 tries\)"),
        ("other form", r"not the protocol's form \(KeyError: 'choices'\) \(3 tries\)"),
        ("dropped", r"connection failed \(.+\) \(3 tries\)"),
    ],
)
def test_after_the_last_try_one_sentence(server: Server, kind: str, said: str) -> None:
    server.trouble = lambda question, attempt: BROKEN[kind] if question == "b" else None
    with pytest.raises(SdrrlError, match=said) as caught:
        engine(server, retries=2).generate(["a", "b"])
    assert "\n" not in str(caught.value)
    assert server.tries["b"] == 3


@pytest.mark.parametrize("after", ["1", "date"])
def test_retry_after_is_honoured(server: Server, after: str) -> None:
    def limited(question: str, attempt: int) -> Reply | None:
        value = after if after == "1" else formatdate(time.time() + 2, usegmt=True)
        return error(429, "slow down", Retry_After=value) if attempt == 1 else None

    server.trouble = limited
    began = time.monotonic()
    assert engine(server).generate(["a"]) == ["A"]
    assert time.monotonic() - began > 0.9


def test_a_slow_answer_is_given_up(server: Server) -> None:
    def slow(question: str, attempt: int) -> None:
        time.sleep(0.6)

    server.trouble = slow
    with pytest.raises(SdrrlError, match=r"no answer within 0.2 s \(timeout_s\) \(2 tries\)"):
        engine(server, timeout_s=0.2, retries=1).generate(["a"])


def test_one_hopeless_request_ends_the_waiting_of_the_others(server: Server) -> None:
    def trouble(question: str, attempt: int) -> Reply:
        if question == "b":
            time.sleep(0.1)
        return error(400, "too long: 9000 tokens") if question == "b" else error(503, "busy", Retry_After="60")

    server.trouble = trouble
    began = time.monotonic()
    with pytest.raises(SdrrlError, match=r"the server refused \(HTTP 400 too long: 9000 tokens\); asked: 'b'"):
        engine(server).generate(["a", "b"])
    assert time.monotonic() - began < 10
    assert server.tries["b"] == 1


def test_a_refused_question_costs_its_row_and_a_refused_key_the_run(server: Server, tmp_path: Path) -> None:
    rows: list[Any] = [{"key": q, "question": q, "answer": "y"} for q in "abcde"]
    stage = Generate(engine(server), {}, "eng", 8, {})
    server.trouble = lambda question, attempt: error(400, "too long: 9000 tokens") if question == "b" else None
    result = Runner(tmp_path / "a").run(stage, Source("five", lambda: iter(rows), len(rows)))
    assert [(r["key"], r["generated"]) for r in result.source().read()] == [(q, q.upper()) for q in "acde"]
    assert [(r["key"], r["reason"]) for r in result.rejects()] == [("b", "error: refused by the server")]
    server.trouble = lambda question, attempt: error(403, "no") if question == "b" else None
    with pytest.raises(SdrrlError, match=r"the server refused \(HTTP 403 no\)"):
        Runner(tmp_path / "b").run(stage, Source("five", lambda: iter(rows), len(rows)))


def test_redirects_are_not_followed(server: Server) -> None:
    server.trouble = lambda question, attempt: (307, b"", {"Location": "http://127.0.0.1:1/v1"})
    with pytest.raises(SdrrlError, match=r"the server refused \(HTTP 307"):
        engine(server).generate(["a"])


def test_the_key_comes_from_the_environment_and_stays_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = engine(server, api_key_env="TEST_SERVER_KEY")
    with pytest.raises(SdrrlError, match="environment variable TEST_SERVER_KEY is not set"):
        keyed.generate(["a"])
    monkeypatch.setenv("TEST_SERVER_KEY", "sk-secret-1")
    assert keyed.generate(["a"]) == ["A"]
    assert server.keys == ["Bearer sk-secret-1"]
    assert b"sk-secret" not in pickle.dumps(keyed)
    assert "sk-secret" not in keyed.identity
    server.trouble = lambda question, attempt: error(401, "Incorrect API key provided: sk-secret-1")
    with pytest.raises(SdrrlError, match=r"refused \(HTTP 401 Incorrect API key provided: \*\*\*\)"):
        keyed.generate(["a"])


def test_a_key_that_no_header_can_hold_stays_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("sk-secret\n1", "sk-secret-é"):
        monkeypatch.setenv("TEST_SERVER_KEY", wrong)
        with pytest.raises(SdrrlError, match="check base_url and the value of TEST_SERVER_KEY") as caught:
            engine(server, api_key_env="TEST_SERVER_KEY").generate(["a"])
        assert "secret" not in str(caught.value)
    assert not server.requests


def test_a_proxy_of_another_kind_is_one_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:1")
    with pytest.raises(SdrrlError, match="the proxy that the environment names cannot be used"):
        engine(server).generate(["a"])


def test_wrong_model_and_dead_server(server: Server) -> None:
    with pytest.raises(SdrrlError, match="does not serve model 'tinny'; did you mean 'tiny'"):
        engine(server, model="tinny").generate(["a"])
    assert not server.requests
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{s.getsockname()[1]}/v1"
        gone = OpenAiServerGenerator("tiny", base_url=dead, retries=1, backoff_s=0.001)
        with pytest.raises(SdrrlError, match=r"connection failed .*refused.* \(2 tries\); check that it runs"):
            gone.generate(["a"])


def test_identity_and_pickle(server: Server) -> None:
    first = engine(server, revision="abc123")
    assert first.identity.startswith("openai_server/tiny@abc123/")
    assert first.identity == OpenAiServerGenerator("tiny", revision="abc123", concurrency=2).identity
    for option in ({"revision": "d"}, {"seed": 1}, {"max_new_tokens": 9}, {"extra": {"top_k": 1}}):
        assert engine(server, **({"revision": "abc123"} | option)).identity != first.identity
    assert first.generate(["a"]) == ["A"]
    assert pickle.loads(pickle.dumps(first)).generate(["a"]) == ["A"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "localhost:8000"}, "is no http"),
        ({"base_url": "http://me:pw@host/v1"}, "base_url holds credentials"),
        ({"unfinished": "trimm"}, "did you mean 'trim'"),
        ({"concurrency": 0}, "concurrency >= 1"),
        ({"top_p": 0}, "0 < top_p <= 1"),
        ({"extra": {"stream": True}}, "extra.stream has an option of its own"),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SdrrlError, match=said) as caught:
        GENERATORS.create("openai_server", model="tiny", **options)
    assert "pw" not in str(caught.value)
