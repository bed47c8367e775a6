"""What other processes say: COMET's worker over its pipe, a server's replies and headers."""

from __future__ import annotations

import contextlib
import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json
from sdrrl_nemo.data.engines.generate.openai_server import OpenAiServerGenerator, read_answer
from sdrrl_nemo.data.engines.http_json import _message, _read, _retry_after, _Transient
from sdrrl_nemo.data.engines.quality.comet import CometKiwi
from sdrrl_nemo.data.engines.served_model import ServedModel
from tests.fuzz.harness import DONE, VALUES, damaged, deadline, only_sdrrl_error, share

REPLY = {"choices": [{"message": {"content": "é"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}
PARTS = st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "completion_tokens"]), VALUES)


@share(0.04)
@given(damaged(json.dumps(REPLY).encode()) | st.builds(lambda v: json.dumps(v).encode(), PARTS | VALUES))
@example(b'{"choices": [{"message": {"content": "\\ud800"}}]}')
@example(b'{"choices": [{"message": {"content": "a"}}], "usage": {"completion_tokens": 1e999}}')
@example(b"9" * 5000)
@example(b"[" * 100_000)
def test_replies(raw: bytes) -> None:
    """A reply is an answer that can be written down, or is asked for again."""
    with deadline(), contextlib.suppress(_Transient):
        canonical_json(_read(httpx.Response(200, content=raw), read_answer).text).encode()
    DONE["server's reply"] += 1


@share(0.01)
@given(
    st.text(max_size=40)
    | st.sampled_from(["²", "٣", "9" * 400, "Mon, 99 Foo 2024", "-1", "Sun, 06 Nov 99999 08:49:37 GMT"])
)
@example("²")
@example("0\x1f")
def test_retry_after(value: str) -> None:
    found = _retry_after(value)
    assert found is None or found >= 0
    DONE["Retry-After"] += 1


@share(0.01)
@given(damaged(b'{"error": {"message": "no"}}'))
@example(b"[" * 60_000)
def test_error_bodies(raw: bytes) -> None:
    with deadline():
        assert len(_message(httpx.Response(500, content=raw)).splitlines()) <= 1
    DONE["server's error"] += 1


@share(0.01)
@given(
    st.text(max_size=20).map("http://".__add__)
    | st.sampled_from(["http://[", "http://h:x/v1", "http://[::1", "//", "http://a:99999"])
)
@example("http://[")
def test_addresses(url: str) -> None:
    from sdrrl_nemo.data.engines.http_json import Retry

    only_sdrrl_error(Path("base_url"), lambda: ServedModel("base_url", "m", url, 1, Retry(), ""), "base_url")


class Handler(BaseHTTPRequestHandler):
    """Answers whatever its server's ``raw`` holds, as it is: no HTTP has to be in it."""

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline()
        self.wfile.write(self.server.raw)  # type: ignore[attr-defined]


@pytest.fixture
def rude() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield running
        running.shutdown()


LIMITED = b"HTTP/1.1 429 x\r\nRetry-After: \xb2\r\n\r\n"
MODELS = b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{"data": [{"id": "tiny"}]}'


@share(0.03)
@given(damaged(MODELS) | st.sampled_from([b"", LIMITED, b"HTTP/1.1 200 OK\r\n" * 200]))
def test_servers_that_do_not_speak_http(rude: ThreadingHTTPServer, raw: bytes) -> None:
    rude.raw = raw  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{rude.server_address[1]}/v1"
    served = OpenAiServerGenerator("tiny", base_url=url, retries=0, backoff_s=0.0, timeout_s=0.3)
    only_sdrrl_error(Path(url), lambda: served.generate(["a"]), "HTTP")


def test_a_key_that_http_cannot_carry_is_not_shown(rude: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_KEY", "sk-žluť")
    url = f"http://127.0.0.1:{rude.server_address[1]}/v1"
    keyed = OpenAiServerGenerator("tiny", base_url=url, retries=0, api_key_env="FUZZ_KEY")
    with pytest.raises(
        SdrrlError, match="characters that HTTP has not; check base_url and the value of FUZZ_KEY"
    ) as caught:
        keyed.generate(["a"])
    assert "sk-" not in str(caught.value)


def comet(folder: Path, raw: bytes) -> CometKiwi:
    """The estimator with a worker that says ``raw`` and then waits for its end."""
    (folder / "checkpoints").mkdir(exist_ok=True)
    for name in ("checkpoints/model.ckpt", "hparams.yaml"):
        (folder / name).write_bytes(b"")
    (folder / "said").write_bytes(raw)
    program = folder / "python"
    if not program.exists():
        program.write_text(f"#!/bin/sh\ncat '{folder}/said' >/dev/fd/$3\nexec 3>&-\nexit 0\n", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return CometKiwi(str(folder), python=str(program))


@share(0.01)
@given(damaged(b'{"ready": {}}\n{"id": 1, "scores": [0.5]}\n'))
@example(b'{"ready": {}}\n{"id": 1, "scores": null}\n')
@example(b'{"ready": {}}\n{"id": 1, "scores": ["x"]}\n')
@example(b'{"ready": {}}\n{"id": 1, "scores": [NaN]}\n')
@example(b'{"ready": {}}\n\xff\xfe\n')
@example(b'{"ready": {}}\n' + b"[" * 100_000 + b"\n")
def test_comet_workers(tmp_path: Path, raw: bytes) -> None:
    engine = comet(tmp_path, raw)
    only_sdrrl_error(tmp_path / "python", lambda: engine.score(["a"], ["b"]), "COMET's pipe")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/nowhere/python\n"])
@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_comets_python_that_cannot_be_started(content: bytes, mode: int, tmp_path: Path) -> None:
    engine = comet(tmp_path, b"")
    (tmp_path / "python").write_bytes(content)
    (tmp_path / "python").chmod(mode)
    with pytest.raises(SdrrlError, match=r"python.*(cannot be started .*make comet-env|ended)"):
        engine.score(["a"], ["b"])
