#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Speed and memory of tokenising and packing, against NeMo's and datatrove's; what the chain costs beside its engines.

    python tools/bench/data_throughput.py packing --json docs/results/data_packing.json [--datatrove PYTHON]
    python tools/bench/data_throughput.py pack-many --samples 10000000 --json docs/results/data_pack_10m.json
    python tools/bench/data_throughput.py overhead --config configs/data/demo_por_short.yaml \
        --json docs/results/data_overhead.json

Each implementation runs in a process of its own, on the same files, with the same tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `tools` is no installed package

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, read_jsonl, write_json, write_jsonl
from sdrrl_nemo.common.provenance import IMPORT_PATHS, provenance
from sdrrl_nemo.common.seeding import named_generator

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = "work/models/SmolLM2-135M-Instruct"
WORDS_OF_QUESTION = (13.0, 0.55)
WORDS_OF_ANSWER = (32.0, 1.0)
"""Median and sigma of log-normal lengths in words: about 15 and 53 on average, as short as Alpaca's rows are."""
SHARD = 1024
DATATROVE = """
import json, sys, time
from importlib.metadata import version
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
source, target, tokenizer, eos, shuffle = sys.argv[1:]
start, cpu = time.perf_counter(), time.process_time()
LocalPipelineExecutor([
    JsonlReader(source, glob_pattern="*.jsonl", text_key="text"),
    DocumentTokenizer(output_folder=target, tokenizer_name_or_path=tokenizer, eos_token=eos,
                      shuffle_documents=shuffle == "shuffled", save_filename="packed", save_final_metadata=False),
], tasks=1, workers=1, logging_dir=target + "/logs").run()
print(json.dumps({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
                  "version": version("datatrove")}))
"""


def synthetic(count: int, seed: int = 1) -> Iterator[dict[str, str]]:
    """Questions and answers of words drawn from the shipped instruction set."""
    rows = [row for _, row in read_jsonl(ROOT / "data/instructions_en.jsonl")]
    words = sorted({w for r in rows for w in f"{r['instruction']} {r['output']}".split()})
    rng = named_generator(seed, "synthetic")
    for begin in range(0, count, SHARD):
        size = min(SHARD, count - begin)
        lengths = [
            np.clip(rng.lognormal(np.log(m), s, size).astype(np.int64), 1, 1500)
            for m, s in (WORDS_OF_QUESTION, WORDS_OF_ANSWER)
        ]
        for q, a in zip(*lengths, strict=True):
            drawn = rng.integers(0, len(words), int(q + a))
            yield {"question": " ".join(words[i] for i in drawn[:q]), "answer": " ".join(words[i] for i in drawn[q:])}


def ours(source: Path, target: Path, capacity: int) -> dict[str, Any]:
    """Tokenise with the chat template, pack, write the packed set: what the pipeline's last two stages do."""
    from sdrrl_nemo.data.outputs import packs_in_order
    from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample
    from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenize, tokenizer_sha256

    tokenizer = load_tokenizer(ROOT / TOKENIZER)

    def samples() -> Iterator[TokenizedSample]:
        rows = (row for _, row in read_jsonl(source))
        number = 0
        while part := list(islice(rows, SHARD)):
            encoded = tokenize(tokenizer, [r["question"] for r in part], [r["answer"] for r in part])
            for tokens, prompt in encoded:
                number += 1
                mask = np.ones(len(tokens), np.uint8)
                mask[:prompt] = 0
                yield TokenizedSample(f"{number:016x}", "LL", np.asarray(tokens, np.int32), mask)

    clock = _clock()
    writer = PackedWriter(target, "train", len(tokenizer), capacity, ("LL",))
    for pack in packs_in_order(samples(), capacity, 100_000, 1):
        writer.add_pack(pack)
    manifest = writer.finish({"tokenizer_sha256": tokenizer_sha256(tokenizer)})
    return {**clock(), "efficiency": manifest["packing_efficiency"], "tokens": manifest["tokens"]}


def nemo(source: Path, target: Path, capacity: int, algorithm: str) -> dict[str, Any]:
    """NeMo's prepare_packed_sequence_data on the same rows, with the same tokenizer."""
    from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
    from nemo.collections.llm.gpt.data.packed_sequence import prepare_packed_sequence_data

    tokenizer = AutoTokenizer(str(ROOT / TOKENIZER))
    target.mkdir(parents=True)
    clock = _clock()
    prepare_packed_sequence_data(
        input_path=source,
        output_path=target / "packed.npy",
        output_metadata_path=target / "metadata.json",
        packed_sequence_size=capacity,
        tokenizer=tokenizer,
        max_seq_length=capacity,
        seed=1,
        packing_algorithm=algorithm,
    )
    spent = clock()
    packed = np.load(target / "packed.npy", allow_pickle=True)
    tokens = sum(len(p["input_ids"]) for p in packed)
    # its pack size counts inputs: one token less than each sample has
    inputs = tokens - sum(len(p["seq_start_id"]) for p in packed)
    return {**spent, "efficiency": inputs / (len(packed) * capacity), "tokens": tokens}


def datatrove(source: Path, target: Path, python: str, order: str) -> dict[str, Any]:
    """datatrove's DocumentTokenizer: documents one after another with an end token, cut into rows when read.

    ``order``: "shuffled" (a second pass over its files, as for training) or "unshuffled" (the least it can do).
    """
    from sdrrl_nemo.data.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(ROOT / TOKENIZER)
    arguments = [source.parent, target, ROOT / TOKENIZER / "tokenizer.json", tokenizer.eos_token, order]
    command = [python, "-c", DATATROVE, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SdrrlError(f"datatrove failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    width = 2 if len(tokenizer) < 1 << 16 else 4
    files = list(target.rglob("*.ds"))
    spent: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    tokens = max(p.stat().st_size for p in files) // width
    return {**spent, "efficiency": 1.0, "tokens": tokens, "note": "samples are cut at the borders of rows"}


def _clock() -> Callable[[], dict[str, float]]:
    """Seconds from now on, of the wall and of all threads; imports and the tokenizer's loading are over."""
    start, cpu = time.perf_counter(), time.process_time()
    return lambda: {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def _as_text(rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Rows for datatrove, which knows no chat template: with it already around them, for as many tokens as ours."""
    from sdrrl_nemo.data.text.tokenizer import load_tokenizer, prompt_texts

    tokenizer = load_tokenizer(ROOT / TOKENIZER)
    prompts = prompt_texts(tokenizer, [r["question"] for r in rows])
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        yield {"text": prompt + row["answer"], "id": str(i)}


def packing(args: argparse.Namespace) -> dict[str, Any]:
    """All implementations, one after another."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        rows = list(synthetic(args.samples))
        write_jsonl(folder / "ours/a.jsonl", rows)
        write_jsonl(folder / "nemo/a.jsonl", ({"input": r["question"], "output": r["answer"]} for r in rows))
        write_jsonl(folder / "datatrove/a.jsonl", _as_text(rows))
        del rows
        names = ["ours", "nemo first_fit_decreasing", "nemo first_fit_shuffle"]
        names += [f"datatrove {order}" for order in ("unshuffled", "shuffled")] if args.datatrove else []
        names = [n for n in names if not args.only or n.split()[0] in args.only]
        found = {n: _alone(n, folder, args.capacity, args.datatrove) for n in names}
    for value in found.values():
        value["samples_per_second"] = round(args.samples / value["seconds"], 1)
        value["samples_per_cpu_second"] = round(args.samples / value["cpu_seconds"], 1)
    return {"samples": args.samples, "capacity": args.capacity, "implementations": found}


def _alone(name: str, folder: Path, capacity: int, python: str) -> dict[str, Any]:
    """One implementation in a process of its own, for its memory."""
    kind, _, option = name.partition(" ")
    command = [sys.executable, __file__, "one", kind, str(folder), str(capacity), option, python]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(IMPORT_PATHS)},
    )
    if done.returncode:
        raise SdrrlError(f"{name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{name}: {result}", file=sys.stderr, flush=True)
    return result


def one(args: argparse.Namespace) -> None:
    """The inside of ``_alone``."""
    source, target = (
        args.folder / args.kind / "a.jsonl",
        args.folder / f"out-{args.kind}-{args.option}",
    )
    if args.kind == "ours":
        result = ours(source, target, args.capacity)
    elif args.kind == "nemo":
        result = nemo(source, target, args.capacity, args.option)
    else:
        result = datatrove(source, target, args.python, args.option)
    who = resource.RUSAGE_CHILDREN if args.kind == "datatrove" else resource.RUSAGE_SELF
    result["peak_rss_mib"] = resource.getrusage(who).ru_maxrss // 1024
    print(json.dumps(result))


def pack_many(args: argparse.Namespace) -> dict[str, Any]:
    """Packs samples of random tokens through the real packer and writer; memory every tenth of the way."""
    import psutil

    from sdrrl_nemo.data.outputs import packs_in_order
    from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample

    process, marks = psutil.Process(), []
    every = max(1, args.samples // 20)

    def samples() -> Iterator[TokenizedSample]:
        rng = named_generator(1, "pack-many")
        number = 0
        while number < args.samples:
            lengths = np.clip(rng.lognormal(4.4, 0.8, SHARD).astype(np.int64), 4, 4096)
            for n in lengths[: args.samples - number].tolist():
                number += 1
                if number % every == 0:
                    marks.append({"samples": number, "rss_mib": process.memory_info().rss >> 20})
                tokens = np.full(n, number % 49152, np.int32)
                mask = np.ones(n, np.uint8)
                mask[0] = 0  # a question of one token
                yield TokenizedSample(f"{number:016x}", "LL", tokens, mask)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        writer = PackedWriter(Path(name), "train", 49152, args.capacity, ("LL",))
        for pack in packs_in_order(samples(), args.capacity, args.buffer, 1):
            writer.add_pack(pack)
        manifest = writer.finish({"tokenizer_sha256": "none"})
    rss = [m["rss_mib"] for m in marks]
    return {
        "samples": args.samples,
        "buffer": args.buffer,
        "tokens": manifest["tokens"],
        "seconds": round(time.perf_counter() - start, 1),
        "efficiency": manifest["packing_efficiency"],
        "rss": marks,
        "rss_last_over_first": round(rss[-1] / rss[0], 3),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    """The chain's time over the time inside the engines' own calls, their loading included on both sides."""
    from sdrrl_nemo.common.config import load_config
    from sdrrl_nemo.data.config import PreprocessConfig
    from sdrrl_nemo.data.engines import base
    from sdrrl_nemo.data.validation import validate
    from tools.preprocess_sdrrl import preprocess

    seconds: dict[str, float] = {}
    calls: dict[str, Any] = {
        "generate": base.GENERATORS,
        "translate": base.TRANSLATORS,
        "score": base.QUALITY_ESTIMATORS,
        "identify": base.LANGUAGE_IDENTIFIERS,
        "entries": base.DICTIONARIES,
    }
    for method, registry in calls.items():
        for kind in registry._factories.values():
            _timed(kind, method, seconds)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        config = load_config(PreprocessConfig, args.config, [f"output_dir={name}/out", *args.overrides])
        validate(config)
        start = time.perf_counter()
        preprocess(config, Path(config.output_dir))
        whole = time.perf_counter() - start
        rows = next(
            s["out"] for s in read_json(Path(config.output_dir) / "stats.json")["stages"] if s["name"] == "ingest"
        )
    engines = sum(seconds.values())
    return {
        "config": str(args.config.relative_to(ROOT) if args.config.is_absolute() else args.config),
        "rows": rows,
        "chain_seconds": round(whole, 2),
        "engine_seconds": {k: round(v, 2) for k, v in sorted(seconds.items())},
        "ratio": round(whole / engines, 4),
    }


def _timed(kind: Any, method: str, seconds: dict[str, float]) -> None:
    """Add the time of a class's method to ``seconds``; inner calls of another engine's count once, as the outer's."""
    plain = getattr(kind, method)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return plain(self, *args, **kwargs)
        finally:
            seconds[method] = seconds.get(method, 0.0) + time.perf_counter() - start

    setattr(kind, method, call)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, required=True)
    common.add_argument("--folder", default=None, help="where temporary files go")
    common.add_argument("--capacity", type=int, default=4096)
    p = commands.add_parser("packing", parents=[common])
    p.add_argument("--samples", type=int, default=100_000)
    p.add_argument("--datatrove", default="", help="Python of an environment that has datatrove")
    p.add_argument("--only", nargs="+", choices=("ours", "nemo", "datatrove"), help="leave the others out")
    p = commands.add_parser("pack-many", parents=[common])
    p.add_argument("--samples", type=int, default=10_000_000)
    p.add_argument("--buffer", type=int, default=100_000)
    p = commands.add_parser("overhead", parents=[common])
    p.add_argument("--config", type=Path, default=ROOT / "configs/data/demo_por_short.yaml")
    p.add_argument("overrides", nargs="*")
    p = commands.add_parser("one")
    p.add_argument("kind")
    p.add_argument("folder", type=Path)
    p.add_argument("capacity", type=int)
    p.add_argument("option", nargs="?", default="")
    p.add_argument("python", nargs="?", default="")
    return parser


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.command == "one":
        one(args)
        return 0
    work = {"packing": packing, "pack-many": pack_many, "overhead": overhead}[args.command]
    result = work(args)
    origin = {k: v for k, v in provenance().items() if k != "command"}
    command = f"python tools/bench/data_throughput.py {args.command}"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    write_json(args.json, {"command": command, "date": date, "cpu_count": os.cpu_count(), "origin": origin, **result})
    print(json.dumps({k: v for k, v in result.items() if k != "rss"}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
