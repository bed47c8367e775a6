"""Everything that the shipped configurations name, at the places where they look for it: tiny, in the official layouts.

Only what cannot exist where tests run is replaced, and by something of its kind: NLLB-200-3.3B by an NLLB folder of two
layers that learnt twelve lines a script, Llama by its tokenizer's folder and a server of the OpenAI protocol, CometKiwi
by a worker that speaks its protocol, Apertium by programs that know six words. Readers, filters, Bergamot, CLD3,
fastText and the sentence encoder are real.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from sdrrl_nemo.data.engines.corpora import gnome_help
from sdrrl_nemo.data.engines.dictionaries import freedict
from sdrrl_nemo.data.engines.translate.apertium import installed
from sdrrl_nemo.data.text.languages import LANGUAGES
from tests.launch import ROOT
from tests.tiny import tiny_model
from tests.tiny_tokenizer import save_tokenizer
from tests.unit.data.shipped.tiny_translator import build, lines_of
from tests.unit.engines.translate.apertium_stand_in import write_pair, write_programs

ROWS = 6
"""Rows of an instruction set: the first six lines are questions, the others their answers."""
PAPER_TARGETS = ("ces dan ukr bul fin hun nob ind jpn kor por slv vie pol tha khm").split()  # noqa: SIM905
FRENCH_TARGETS = ("ind", "jpn", "kor")
SERVED = ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-13b-chat-hf", "SeaLLMs/SeaLLM-7B-v2")
BASE_64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def build_all(root: Path) -> None:
    """Write every resource below ``root``, which is to be the working directory."""
    models = root / "work/models"
    for name in ("Llama-2-7b-chat-hf", "Llama-2-13b-chat-hf", "SeaLLM-7B-v2"):
        save_tokenizer(models / name)
    tiny_model(models / "SmolLM2-135M-Instruct", layers=1)
    build(models / "nllb-200-3.3B")
    comet(root)
    instructions(root)
    muse(root / "data/muse")
    opus(root)
    debian_packages(root / ".cache/debian")


def instructions(root: Path) -> None:
    """Alpaca in English and French, with an empty answer as the real one has, and the repository's own set."""
    for code, name in (("eng", "alpaca_data.json"), ("fra", "alpaca_data_fr.json")):
        lines = lines_of(code)
        rows = [{"instruction": lines[i], "input": "", "output": lines[i + ROWS]} for i in range(ROWS)]
        rows.append({"instruction": "Say nothing.", "input": "", "output": ""})
        write(root / "data/alpaca" / name, json.dumps(rows, ensure_ascii=False))
    (root / "data/instructions_en.jsonl").symlink_to(ROOT / "data/instructions_en.jsonl")


def muse(folder: Path) -> None:
    """``en-cs.txt`` and so on, with a tab or a space between, a phrase among them; none of Khmer, none of fr-id."""
    for code in [c for c in PAPER_TARGETS if c != "khm"]:
        words = sorted({w for line in lines_of("eng") for w in line.lower().strip(".?").split()})
        targets = [w for line in lines_of(code) for w in line.split()]
        pairs = [f"{w}{' ' if i % 2 else chr(9)}{targets[i % len(targets)]}" for i, w in enumerate(words)]
        write(folder / f"en-{LANGUAGES[code].muse}.txt", "\n".join([*pairs, "in addition too many words"]) + "\n")
    french = sorted({w for line in lines_of("fra") for w in line.lower().strip(".?").split()})
    english = sorted({w for line in lines_of("eng") for w in line.lower().strip(".?").split()})
    write(folder / "fr-en.txt", "".join(f"{w} {english[i % len(english)]}\n" for i, w in enumerate(french)))


def sentences(code: str, count: int = 24) -> list[str]:
    """Different sentences of a parallel corpus."""
    lines = lines_of(code)
    return [f"{lines[i % len(lines)]} {i} {lines[(i * 5 + 1) % len(lines)]}." for i in range(count)]


def opus(root: Path) -> None:
    """OPUS-100 as the archive has it and, for every other language, as Parquet; TED2020 in Moses' form."""
    for number, code in enumerate(PAPER_TARGETS):
        other = str(LANGUAGES[code].opus100)
        pair = "-".join(sorted(("en", other)))
        texts = {"en": sentences("eng"), other: sentences(code)}
        folder = root / "data/opus100" / pair
        if number % 2:
            folder.mkdir(parents=True)
            rows = [{"translation": {"en": a, other: b}} for a, b in zip(*texts.values(), strict=True)]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
        else:
            for name, lines in texts.items():
                write(folder / f"opus.{pair}-train.{name}", "\n".join(lines) + "\n")
    for code in FRENCH_TARGETS:
        other = str(LANGUAGES[code].opus100)
        for name, lines in (("fr", sentences("fra")), (other, sentences(code))):
            write(root / f"data/ted2020/TED2020.fr-{other}.{name}", "\n".join(lines) + "\n")


def debian_packages(cache: Path) -> None:
    """GNOME's manuals and the FreeDict dictionaries, unpacked as the engines leave them."""
    help_ = cache / f"{gnome_help.PACKAGE}-{gnome_help.VERSION}" / gnome_help.HELP
    for entry in LANGUAGES.values():
        if entry.gnome:
            body = "".join(f"<p>{text}</p>" for text in sentences(entry.code))
            page = f'<page xmlns="http://projectmallard.org/1.0/" id="index">{body}</page>'
            write(help_ / entry.gnome / "gnome-help/index.page", page)
        if entry.freedict and entry.code != "fra":
            wikdict = entry.freedict in freedict.WIKDICT
            version = freedict.WIKDICT_VERSION if wikdict else freedict.VERSION
            package = f"dict-freedict-eng-{entry.freedict}"
            stem = cache / f"{package}-{version}/usr/share/dictd/freedict-eng-{entry.freedict}"
            write_dict(stem, {"the": "la", "what": "que", "is": "jest", "day": lines_of(entry.code)[0].split()[0]})
    for name, version, _ in installed.PROGRAMS:
        write_programs(cache / f"{name}-{version}")
    for package, version in installed.PAIRS.values():
        write_pair(cache / f"{package}-{version}")


def write_dict(stem: Path, entries: dict[str, str]) -> None:
    """A dictionary in DICT's format: articles in one packed file, their places in the index."""
    data, index = b"", ["00database-short\tA\tA"]
    for word, translation in entries.items():
        article = f"{word} /x/\n{translation}\n".encode()
        index.append(f"{word}\t{number(len(data))}\t{number(len(article))}")
        data += article
    write(stem.with_suffix(".index"), "\n".join(index) + "\n")
    stem.with_suffix(".dict.dz").write_bytes(gzip.compress(data))


def number(value: int) -> str:
    """DICT's numbers: base 64, most significant digit first."""
    return (number(value // 64) if value >= 64 else "") + BASE_64[value % 64]


WORKER = """
import json, os, sys
out = os.fdopen(int(sys.argv[1]), "w")
def reply(message):
    out.write(json.dumps(message) + "\\n"); out.flush()
options = json.loads(sys.stdin.readline())
assert os.path.exists(options["model"]) and os.path.isdir(options.get("encoder") or options["tokenizer"]), options
assert options["device"] == "cuda" and not options.get("reference"), options
reply({"ready": {}})
for line in sys.stdin:
    request = json.loads(line)
    reply({"id": request["id"], "scores": [0.9 for row in request["data"]]})
"""


def comet(root: Path) -> None:
    """The folders of checkpoint and encoder, and in the environment's place a program that answers for the worker."""
    model = root / "work/models/wmt22-cometkiwi-da"
    write(model / "checkpoints/model.ckpt", "weights")
    write(model / "hparams.yaml", "class_identifier: unified_metric\npretrained_model: microsoft/infoxlm-large\n")
    xcomet = root / "work/models/xcomet-xl"
    write(xcomet / "checkpoints/model.ckpt", "weights")
    write(xcomet / "hparams.yaml", "class_identifier: xcomet_metric\npretrained_model: facebook/xlm-roberta-xl\n")
    write(root / "work/models/metricx/config.json", '{"model_type": "mt5"}')
    write(root / "work/models/mt5/tokenizer.json", "{}")
    for name in ("config.json", "tokenizer.json"):
        write(root / "work/models/infoxlm-large" / name, "{}")
    write(root / ".venv-comet/worker.py", WORKER)
    # Called as Python is: -I, the worker's file, a file descriptor.
    script = f'#!/bin/sh\nexec {sys.executable} "{root}/.venv-comet/worker.py" "$3"\n'
    python = write(root / ".venv-comet/bin/python", script)
    python.chmod(0o755)


class Server(ThreadingHTTPServer):
    """A server of the OpenAI protocol that serves every model that the configurations name, and answers with a line."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._send({"data": [{"id": name} for name in SERVED]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] in SERVED
        code = next(c for c in ("eng", "fra") if body["messages"][-1]["content"] in lines_of(c))
        lines = lines_of(code)
        answer = lines[ROWS + (lines.index(body["messages"][-1]["content"]) + 1) % ROWS]
        message = {"role": "assistant", "content": answer}
        self._send({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _send(self, reply: Any) -> None:
        raw = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def serve() -> Iterator[str]:
    """The address of a running server."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.url
    server.shutdown()
    server.server_close()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
