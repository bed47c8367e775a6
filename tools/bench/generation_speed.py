#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""y_hat by transformers' ``generate`` and by the generators ``hf`` and ``ctranslate2`` in one run: seconds, tokens a
second, answers finished, answers alike.

    tools/bench/generation_speed.py --prompts 15 --tokens 128 --batch 64 --output docs/results/generation_speed.json

The prompts are those of a data configuration: the training questions that draw y_hat (Eq. 4), the first N. All work in
fp32, greedily, with the same batch and ``--penalty``; loading and converting the model is not counted. ``--alone N``
lets the configuration's own generator answer N prompts with its own options, for the share of answers that end within
its limit, and the seconds of that. A run is appended to the ``runs`` of the output where that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.common.provenance import versions
from sdrrl_nemo.data.config import InstructionsConfig, PreprocessConfig
from sdrrl_nemo.data.engines.base import GENERATORS, Answer, Generator
from sdrrl_nemo.data.engines.generate.hf import HfGenerator
from sdrrl_nemo.data.engines.generate.in_process import Prompt
from sdrrl_nemo.data.readers import content_of
from sdrrl_nemo.data.rows import NoRow
from sdrrl_nemo.data.stages.ingest import Ingest
from sdrrl_nemo.data.stages.synthesise import draws_y_hat


def questions_of(config: PreprocessConfig) -> list[str]:
    """The questions of single exchanges that the model is asked in that configuration."""
    section: InstructionsConfig = config.instructions
    rows = Ingest(section, content_of(section.path), config.seed, config.turns).process([NoRow()]).rows
    return [r["question"] for r in rows if r.get("split") == "train" and draws_y_hat(config.seed, r["key"])]


Seconds = tuple[float, float]
"""On the clock, and of all processor cores together, which other work on the machine changes less."""


def asked(engine: Generator, questions: Sequence[str]) -> tuple[list[Answer], Seconds]:
    """The answers and what they took."""
    clock, processor = time.perf_counter(), time.process_time()
    answers = engine.answer(questions)
    return answers, (time.perf_counter() - clock, time.process_time() - processor)


def figures(answers: Sequence[Answer], seconds: Seconds) -> dict[str, Any]:
    """Counts and speed of one engine's answers."""
    tokens = sum(a.tokens for a in answers)
    return {
        "answers": len(answers),
        "finished": sum(bool(a.finished) for a in answers),
        "unfinished": dict(Counter(a.reason for a in answers if not a.finished)),
        "tokens": tokens,
        "seconds": round(seconds[0], 1),
        "cpu_seconds": round(seconds[1], 1),
        "tokens_per_second": round(tokens / seconds[0], 1),
        "tokens_per_cpu_second": round(tokens / seconds[1], 1),
    }


class Generate(HfGenerator):
    """The same questions and the same penalty, by transformers' own ``generate``: the peer."""

    def _greedy(self, batch: list[Prompt]) -> list[list[int]]:
        return self._by_transformers(batch)


def side_by_side(
    model: str, questions: Sequence[str], tokens: int, batch: int, threads: int, penalty: float
) -> dict[str, Any]:
    """All three on the same questions, one after another."""
    common: dict[str, Any] = {
        "model": model,
        "max_new_tokens": tokens,
        "batch_size": batch,
        "unfinished": "keep",
        "repetition_penalty": penalty,
    }
    engines: dict[str, Generator] = {
        "transformers": Generate(**common, device="cpu"),
        "hf": GENERATORS.create("hf", **common, device="cpu"),
        "ctranslate2": GENERATORS.create("ctranslate2", **common, device="cpu", intra_threads=threads),
    }
    said: dict[str, list[Answer]] = {}
    found: dict[str, Any] = {}
    for name, engine in engines.items():
        engine.generate(questions[:1])  # loads, and converts
        said[name], took = asked(engine, questions)
        found[name] = figures(said[name], took)
        print(f"{name}: {found[name]}", flush=True)
    alike = sum(len({a.text for a in texts}) == 1 for texts in zip(*said.values(), strict=True))
    return {
        "max_new_tokens": tokens,
        "batch_size": batch,
        "repetition_penalty": penalty,
        **found,
        "texts_alike": alike,
    }


def alone(config: PreprocessConfig, questions: Sequence[str]) -> dict[str, Any]:
    """The configuration's own engine on its own shards."""
    chosen, size = config.generation.engine, config.generation.shard_size
    engine = GENERATORS.create(chosen.name, **chosen.options)
    engine.generate(questions[:1])
    said: list[Answer] = []
    clock = processor = 0.0
    for at in range(0, len(questions), size):
        answers, took = asked(engine, questions[at : at + size])
        said += answers
        clock, processor = clock + took[0], processor + took[1]
        print(f"{chosen.name}: {figures(answers, took)}", flush=True)
    return {"engine": chosen.name, "options": dict(chosen.options), **figures(said, (clock, processor))}


def main(argv: Sequence[str]) -> int:
    """Parse, ask, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/data/demo_por_short.yaml")
    parser.add_argument("--output", required=True)
    parser.add_argument("--prompts", type=int, default=16, help="asked of all three; 0: none")
    parser.add_argument("--penalty", type=float, default=1.0, help="repetition_penalty of all three")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--alone", type=int, default=0, help="asked of the configuration's own engine; 0: none")
    args = parser.parse_args(argv)
    config = load_config(PreprocessConfig, args.config, [])
    questions = questions_of(config)
    if max(args.prompts, args.alone) > len(questions):
        raise SdrrlError(f"{args.config} asks the model {len(questions)} questions; give --prompts and --alone no more")
    document: dict[str, Any] = {
        "config": args.config,
        "model": Path(config.model).name,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, no GPU",
        "date": datetime.now(UTC).date().isoformat(),
        "command": "tools/bench/generation_speed.py " + " ".join(a for a in argv if a not in ("--output", args.output)),
        "versions": versions(),
    }
    if args.prompts:
        chosen = questions[: args.prompts]
        document["together"] = side_by_side(config.model, chosen, args.tokens, args.batch, args.threads, args.penalty)
    if args.alone:
        document["alone"] = alone(config, questions[: args.alone])
    document["load_average"] = os.getloadavg()
    earlier = read_json(args.output)["runs"] if Path(args.output).is_file() else []
    write_json(args.output, {"runs": [*earlier, document]})
    print(json.dumps({k: document[k] for k in ("together", "alone") if k in document}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
