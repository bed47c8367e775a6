#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""What the chain costs a row without its engines: 20,000 questions through engines that do nothing.

    python tools/bench/chain_cost.py --json docs/results/data_chain.json

All steps, filters, the real tokenizer and packing are those of the configuration; generator, translator, estimator,
identifier, dictionary and corpus are replaced by ones that answer at once. Rows are the shipped instructions over and
over, each made unique by a number. One process; seconds are the process's CPU time, which other work beside it changes
little. ``--profile`` lists the functions that take most.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `tools` is no installed package

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.fileio import read_json, read_jsonl, write_json, write_jsonl
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.config import EngineConfig, PreprocessConfig
from sdrrl_nemo.data.engines import base

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTIONS = ROOT / "data/instructions_en.jsonl"
SENTENCES = 2_000


@base.GENERATORS.register("null")
class NullGenerator(base.Generator):
    """Answers with the question's words, last one first."""

    def generate(self, questions: Sequence[str]) -> list[str]:
        return [" ".join(reversed(q.split()))[:400] + "." for q in questions]


@base.TRANSLATORS.register("null")
class NullTranslator(base.Translator):
    """Writes every word of letters backwards: another text of the same length, numbers and marks in place."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        return [" ".join(w[::-1] if w.isalpha() else w for w in text.split(" ")) for text in texts]


@base.QUALITY_ESTIMATORS.register("null")
class NullEstimator(base.QualityEstimator):
    """Every translation is good."""

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        return [1.0] * len(sources)


@base.LANGUAGE_IDENTIFIERS.register("null")
class NullIdentifier(base.LanguageIdentifier):
    """Every text is Portuguese."""

    def identify(self, texts: Sequence[str]) -> list[base.Identified]:
        return [base.Identified("por", 1.0)] * len(texts)


@base.DICTIONARIES.register("null")
class NullDictionary(base.Dictionary):
    """The words of the shipped instructions, backwards."""

    def entries(self, source: str, target: str) -> Mapping[str, Sequence[str]]:
        texts = (row["instruction"].lower() for _, row in read_jsonl(INSTRUCTIONS))
        return {w: [w[::-1]] for w in sorted({w for text in texts for w in text.split() if w.isalpha()})}


@base.PARALLEL_CORPORA.register("null")
class NullCorpus(base.ParallelCorpus):
    """Numbered sentences."""

    def pairs(self, source: str, target: str) -> Iterator[base.SentencePair]:
        for n in range(SENTENCES):
            yield base.SentencePair(f"This is sentence {n} of a manual.", f"Esta é a frase {n} de um manual.")


def instructions(count: int) -> Iterator[dict[str, str]]:
    """``count`` rows."""
    rows = [row for _, row in read_jsonl(INSTRUCTIONS)]
    for n in range(count):
        row = rows[n % len(rows)]
        yield {**row, "instruction": f"Case {n}: {row['instruction']}"} if n >= len(rows) else row


def configuration(config: Path, folder: Path, rows: int, overrides: Sequence[str]) -> PreprocessConfig:
    """The configuration with ``rows`` instructions and engines that do nothing."""
    path = folder / "instructions.jsonl"
    write_jsonl(path, instructions(rows))
    changes = [f"output_dir={folder / 'out'}", f"instructions.path={path}"]
    found = load_config(PreprocessConfig, config, [*changes, *overrides])
    nothing = EngineConfig("null")
    found.generation.engine, found.quality.engine, found.language_id.engine = nothing, nothing, nothing
    found.code_switch.dictionary, found.parallel.engine, found.translation.name = nothing, nothing, "null"
    return found


def measure(config: PreprocessConfig) -> dict[str, Any]:
    """CPU seconds of a whole run in this process, and the rows and seconds of its stages."""
    from sdrrl_nemo.data.validation import validate
    from tools.preprocess_sdrrl import preprocess

    validate(config)
    begin, wall = time.process_time(), time.perf_counter()
    preprocess(config, Path(config.output_dir))
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    stats = read_json(Path(config.output_dir) / "stats.json")
    stages = {s["name"]: {"in": s["in"], "out": s["out"], "seconds": s["seconds"]} for s in stats["stages"]}
    return {"cpu_seconds": round(cpu, 2), "wall_seconds": round(wall, 2), "stages": stages}


def costliest(profile: cProfile.Profile, count: int = 25) -> list[dict[str, Any]]:
    """The functions in which most time passes, themselves alone."""
    table = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = sorted(table.items(), key=lambda item: -item[1][2])[:count]
    return [
        {"function": f"{Path(file).name}:{line} {name}", "calls": calls, "seconds": round(own, 2)}
        for (file, line, name), (_, calls, own, _, _) in rows
    ]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs/data/demo_por.yaml")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true", help="list the costliest functions; times are then too long")
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value")
    args = parser.parse_args(argv)
    few = 100  # what starting costs, whatever the number of rows: subtracted below
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "few").mkdir()
        start = measure(configuration(args.config, Path(name) / "few", few, args.overrides))
        config = configuration(args.config, Path(name), args.rows, args.overrides)
        if args.profile:
            profile.enable()
        result = measure(config)
        profile.disable()
    own = result["cpu_seconds"] - start["cpu_seconds"]
    result |= {"rows": args.rows, "start_cpu_seconds": start["cpu_seconds"]}
    result["milliseconds_a_row"] = round(1000 * own / (args.rows - few), 3)
    if args.profile:
        result["costliest"] = costliest(profile)
    origin = {k: v for k, v in provenance().items() if k != "command"}
    about = {"command": "python tools/bench/chain_cost.py", "config": args.config.name, "cpu_count": os.cpu_count()}
    found = {**about, "date": time.strftime("%Y-%m-%d", time.gmtime()), "origin": origin, **result}
    if args.json:
        write_json(args.json, found)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
