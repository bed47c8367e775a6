"""Every reader of files: a valid file, the files beside it, and the call that reads it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.fileio import read_json, read_jsonl
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.engines.corpora.aligned import Moses, Opus100, Tmx
from sdrrl_nemo.data.engines.corpora.gnome_help import read_page
from sdrrl_nemo.data.engines.corpora.tsv import TsvCorpus
from sdrrl_nemo.data.engines.dictionaries.freedict import parse_article, read_articles
from sdrrl_nemo.data.engines.dictionaries.muse import Muse
from sdrrl_nemo.data.readers import read_examples
from sdrrl_nemo.data.text.segmentation import protect
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig


@dataclass(frozen=True)
class Parser:
    """``file`` gets the bytes, ``beside`` lies there whole, ``read`` reads it all. ``part``: share of all inputs."""

    file: str
    valid: Callable[[], bytes]
    read: Callable[[Path], Any]
    beside: Callable[[], Mapping[str, bytes]] = field(default=dict)
    part: float = 0.03


def _lines(*rows: Any) -> Callable[[], bytes]:
    return lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


ALPACA = [
    {"instruction": "Olá é?", "input": "", "output": "A"},
    {"instruction": "B\u2028", "input": "c", "output": "D"},
]
TURNS = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
CSV = b'instruction,input,output\r\n"Ol\xc3\xa1 ""x"", y?",,A\r\nB,c,"D\nE"\r\n'
TMX = """<?xml version="1.0" encoding="UTF-8"?><tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="en-US"><seg>A <hi>dog</hi><bpt i="1">x</bpt>.</seg></tuv>
<tuv xml:lang="pt"><seg>Um cão.</seg></tuv></tu>
<tu><tuv lang="EN"><seg>B &amp; C</seg></tuv><tuv lang="PT"><seg>B e C</seg></tuv></tu></body></tmx>"""
PAGE = """<page xmlns="http://projectmallard.org/1.0/">
<p>One <em>a</em> two.</p><list><item><p>Three.</p></item></list></page>"""
ARTICLES = "00-database-info\nX\ndog /dɒg/ <n>\ncão, <masc>cachorro\ncat\n1. gato\n"
YAML = b"""seed: 7
output_dir: out
model: work/model
target_languages: [por]
plugins: []
generation: {engine: {name: hf, options: {model: m, batch_size: 4}}}
by_pair: {eng-por: {quality: {tau: 0.5}}}
"""


@cache
def _parquet(opus: bool) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"translation": {"en": f"word {i}", "pt": f"palavra {i}"}} for i in range(4)] if opus else ALPACA
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


@cache
def tokenizer_files() -> Mapping[str, bytes]:
    """A tiny tokenizer's folder."""
    from tests.unit.data.tiny_run import make_tokenizer

    with TemporaryDirectory() as folder:
        make_tokenizer(Path(folder))
        return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def _others(name: str) -> Callable[[], Mapping[str, bytes]]:
    return lambda: {k: v for k, v in tokenizer_files().items() if k != name}


@cache
def _gguf() -> bytes:
    from tests.unit.engines.conftest import _write

    with TemporaryDirectory() as folder:
        return _write(Path(folder) / "tiny.gguf").read_bytes()[: 1 << 13]  # the header; weights are not read here


CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "vocab_size": 300, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 128, "tie_word_embeddings": True,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 64},
}  # fmt: skip


def _read_gguf(path: Path) -> Any:
    from sdrrl_nemo.model.gguf import read_fields

    return read_fields(path)


def _read_tokenizer(path: Path) -> Any:
    from sdrrl_nemo.data.text.tokenizer import load_tokenizer

    return load_tokenizer(path.parent)


def _read_model_config(path: Path) -> Any:
    from sdrrl_nemo.model.provider import read_hf_config

    return read_hf_config(path.parent)


def _read_indexed(path: Path) -> Any:
    from sdrrl_nemo.data.packing.indexed import open_indexed

    found = open_indexed(path.with_suffix(""))
    return [found[i] for i in range(len(found))]


def _read_packed(path: Path) -> Any:
    from sdrrl_nemo.data.packing.packed import PackedDataset

    found = PackedDataset(path.parent)
    return [found[i] for i in range(len(found))]


@cache
def packed_files() -> Mapping[str, bytes]:
    """A small packed set."""
    import numpy as np

    from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample

    mask = np.asarray([0, 0, 1, 1, 1], np.uint8)
    with TemporaryDirectory() as folder:
        writer = PackedWriter(folder, "train", vocab_size=100, seq_length=16)
        for i in range(1, 5):
            sample = TokenizedSample(f"{i:016x}", "LL", np.arange(i, i + 5, dtype=np.int32), mask)
            writer.add_pack([sample, sample])
        writer.finish({"tokenizer_sha256": "a" * 64})
        return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def _packed_but(name: str) -> Callable[[], Mapping[str, bytes]]:
    return lambda: {k: v for k, v in packed_files().items() if k != name}


def _articles(path: Path) -> Any:
    return [parse_article(a) for a in read_articles(path.with_name("freedict-eng-por.index"))]


DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _index_line(word: str, until: str) -> str:
    """DICT's index entry of the article that begins with ``word`` and ends before ``until``."""
    whole = ARTICLES.encode()
    start = whole.index(word.encode())
    size = whole.index(until.encode()) - start if until else len(whole) - start
    return "\t".join([word, *(DIGITS[n // 64] + DIGITS[n % 64] for n in (start, size))]) + "\n"


INDEX = "".join(_index_line(*x) for x in (("00-database-info", "dog"), ("dog", "cat"), ("cat", ""))).encode()
DICT, INDEX_NAME = "freedict-eng-por.dict.dz", "freedict-eng-por.index"


def _packed() -> bytes:
    return gzip.compress(_lines(*ALPACA)(), mtime=0)


def _zipped() -> bytes:
    return gzip.compress(ARTICLES.encode(), mtime=0)


def _moses(path: Path) -> Any:
    return list(Moses(str(path), str(path.with_name("b.pt")), "eng", "por").pairs("eng", "por"))


def _opus(path: Path) -> Any:
    return list(Opus100(str(path.parents[1])).pairs("eng", "por"))


def _tsv(path: Path) -> Any:
    return list(TsvCorpus(str(path), "eng", "por").pairs("por", "eng"))


def _muse(path: Path) -> Any:
    return Muse(str(path.parent)).entries("eng", "por")


def _article(path: Path) -> Any:
    return parse_article(path.read_bytes().decode("utf-8", "replace"))


def _segmented(path: Path) -> Any:
    text = path.read_bytes().decode("utf-8", "surrogateescape")[:4000]
    found = protect(text, "eng")
    assert found.restore(found.segments) == text
    return found


PARSERS: dict[str, Parser] = {
    "jsonl": Parser("rows.jsonl", _lines(*ALPACA), lambda p: [json.dumps(r) for r in read_jsonl(p)], part=0.08),
    "json": Parser("facts.json", _lines(CONFIG), read_json, part=0.04),
    "alpaca": Parser("rows.jsonl", _lines(*ALPACA), lambda p: list(read_examples(p)), part=0.06),
    "sharegpt": Parser("rows.jsonl", _lines({"conversations": TURNS}), lambda p: list(read_examples(p))),
    "records.json": Parser("rows.json", lambda: json.dumps(ALPACA).encode(), lambda p: list(read_examples(p))),
    "records.parquet": Parser("rows.parquet", lambda: _parquet(False), lambda p: list(read_examples(p))),
    "records.csv": Parser("rows.csv", lambda: CSV, lambda p: list(read_examples(p)), part=0.02),
    "records.gz": Parser("rows.jsonl.gz", _packed, lambda p: list(read_examples(p)), part=0.02),
    "opus.parquet": Parser("en-pt/train-0.parquet", lambda: _parquet(True), _opus, part=0.02),
    "moses": Parser("a.en", "One é.\nTwo.\n".encode, _moses, lambda: {"b.pt": b"Um.\nDois.\n"}),
    "tmx": Parser("memory.tmx", TMX.encode, lambda p: list(Tmx(str(p)).pairs("eng", "por")), part=0.06),
    "tsv": Parser(
        "pairs.tsv", "a é\tb\nc\td\n".encode, _tsv
    ),
    "mallard": Parser("index.page", PAGE.encode, read_page),
    "muse": Parser("en-pt.txt", "dog cão\ncat gato\n".encode, _muse),
    "dict.dz": Parser(DICT, _zipped, _articles, lambda: {INDEX_NAME: INDEX}),
    "dict.index": Parser(INDEX_NAME, lambda: INDEX, _articles, lambda: {DICT: _zipped()}),
    "dict.text": Parser("article.txt", ARTICLES.encode, _article),
    "segmentation": Parser("text.txt", lambda: b"# A `b` c.\n\n| x | $y$ |\n", _segmented, part=0.06),
    "PreprocessConfig": Parser("data.yaml", lambda: YAML, lambda p: load_config(PreprocessConfig, p), part=0.03),
    "EvalConfig": Parser("eval.yaml", lambda: YAML, lambda p: load_config(EvalConfig, p), part=0.02),
    "BenchmarkConfig": Parser("eval.yaml", lambda: YAML, lambda p: load_config(BenchmarkConfig, p), part=0.02),
    "idx": Parser("train.idx", lambda: packed_files()["train.idx"], _read_indexed, _packed_but("train.idx"), 0.05),
    "manifest": Parser(
        "train.manifest.json", lambda: packed_files()["train.manifest.json"], _read_packed,
        _packed_but("train.manifest.json"), 0.04,
    ),
    "gguf": Parser("model.gguf", _gguf, _read_gguf, part=0.02),
    "tokenizer.json": Parser(
        "tokenizer.json", lambda: tokenizer_files()["tokenizer.json"], _read_tokenizer, _others("tokenizer.json"), 0.02
    ),
    "tokenizer_config.json": Parser(
        "tokenizer_config.json", lambda: tokenizer_files()["tokenizer_config.json"], _read_tokenizer,
        _others("tokenizer_config.json"), 0.02,
    ),
    "config.json": Parser("config.json", _lines(CONFIG), _read_model_config, part=0.02),
}  # fmt: skip
"""By name; the parts add up to less than one, the rest is for the tests of structured values and of bit flips."""


def place(parser: Parser, folder: Path) -> Path:
    """Put the files beside the fuzzed one under ``folder``; returns where that goes."""
    path = folder / parser.file
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, content in parser.beside().items():
        (path.parent / name).write_bytes(content)
    return path


def names(parser: Parser, path: Path) -> Path:
    """What an error must name: the file, or the folder that it makes whole."""
    return path.parent if parser.read in (_read_tokenizer,) else path
