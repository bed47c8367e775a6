#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Log-likelihood evaluation of this project beside lm-evaluation-harness's: same items, same answers, time of each.

    python tools/bench/evaluation_speed.py --model work/models/SmolLM2-135M-Instruct --lm-eval-python /path/to/python \
        --output docs/results/eval_speed.json

500 items in Belebele's format are made from the shipped ones (passages joined in pairs, answers shuffled; the same on
every machine), and each side answers them in a process of its own: prompts, tokenisation, log-likelihoods, accuracy;
loading the model is not counted. ``--lm-eval-python`` is the interpreter of an environment with lm_eval 0.4.13.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, read_jsonl, write_json, write_jsonl
from sdrrl_nemo.common.provenance import IMPORT_PATHS, REPO_ROOT, versions
from sdrrl_nemo.common.seeding import named_random

LANGUAGES = {"eng": "eng_Latn", "por": "por_Latn"}

OURS = """
import json, sys, time
from sdrrl_nemo.eval.evaluation import plan
from sdrrl_nemo.eval.backends.interface import BACKENDS
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.model_folder import open_model_folder
model, data, size, out = sys.argv[1:]
config = BenchmarkConfig(names=["belebele"], data_dir=data, device="cpu", batch_tokens=int(size))
config.prompts.belebele = "lm_eval"
backend = BACKENDS.create("transformers", folder=open_model_folder("model", model), config=config)
backend.prepare()
wall, cpu = time.perf_counter(), time.process_time()
found = {}
for task in plan(config)[0]:
    scored = task.score(backend.run(task.requests, lambda n: None))
    found[task.name[-3:]] = [scored.metrics["accuracy"] / 100, [i["log_likelihoods"] for i in scored.items]]
result = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "found": found}
json.dump(result, open(out, "w"))
"""
HARNESS = """
import json, sys, time
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
model, data, size, out, tasks = sys.argv[1:]
lm = HFLM(pretrained=model, dtype="float32", batch_size=int(size), device="cpu")
manager = TaskManager(include_path=tasks, metadata={"data_dir": data})
wall, cpu = time.perf_counter(), time.process_time()
names = ["sdrrl_belebele_pq_eng", "sdrrl_belebele_pq_por"]
results = lm_eval.simple_evaluate(model=lm, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0)
times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
found = {}
for name in names:
    samples = sorted(results["samples"][name], key=lambda s: s["doc_id"])
    lls = [[r[0][0] if isinstance(r[0], (list, tuple)) else r[0] for r in s["resps"]] for s in samples]
    found[name[-3:]] = [results["results"][name]["acc,none"], lls]
json.dump({**times, "found": found, "lm_eval": lm_eval.__version__}, open(out, "w"))
"""


def make_items(folder: Path, count: int) -> None:
    """``count`` items, half in each language, below ``folder`` in Belebele's layout; the same every time."""
    for lang, name in LANGUAGES.items():
        shipped = [row for _, row in read_jsonl(REPO_ROOT / "data" / "benchmarks" / "Belebele" / f"{name}.jsonl")]
        rows = []
        for n in range(count // len(LANGUAGES)):
            random = named_random(0, "bench_eval", lang, n)
            row, other = dict(shipped[n % len(shipped)]), random.choice(shipped)
            passages = [row["flores_passage"], other["flores_passage"]]
            random.shuffle(passages)
            answers = [row[f"mc_answer{k}"] for k in (1, 2, 3, 4)]
            right = answers[int(row["correct_answer_num"]) - 1]
            random.shuffle(answers)
            row.update({f"mc_answer{k}": a for k, a in enumerate(answers, 1)})
            row.update(link=f"{row['link']}/{n}", flores_passage=" ".join(passages))
            rows.append({**row, "correct_answer_num": str(answers.index(right) + 1)})
        write_jsonl(folder / "Belebele" / f"{name}.jsonl", rows)


def one(python: str, code: str, arguments: Sequence[str], threads: int) -> dict[str, Any]:
    """Run ``code`` in a process of its own; its result file as a dictionary."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        env = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(IMPORT_PATHS),
        }
        command = [python, "-c", code, *arguments[:3], str(out), *arguments[3:]]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=REPO_ROOT)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SdrrlError(f"{python}: the benchmark's process failed ({last[:300]})")
        result: dict[str, Any] = read_json(out)
        return result


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Accuracy of both, largest difference of a log-likelihood, questions with another answer."""
    difference, other = 0.0, 0
    for lang in LANGUAGES:
        for a, b in zip(ours["found"][lang][1], theirs["found"][lang][1], strict=True):
            difference = max(difference, *(abs(x - y) for x, y in zip(a, b, strict=True)))
            other += a.index(max(a)) != b.index(max(b))
    accuracy = {lang: [ours["found"][lang][0], theirs["found"][lang][0]] for lang in LANGUAGES}
    return {"accuracy": accuracy, "largest_difference_nats": difference, "other_answers": other}


def main(argv: Sequence[str]) -> int:
    """Parse, make the items, run both sides in turn, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--lm-eval-python", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 1], help="lm_eval's, each run once a round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    runs: list[dict[str, Any]] = []
    compared: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as data:
        make_items(Path(data), args.items)
        for _ in range(args.rounds):
            ours = one(sys.executable, OURS, [args.model, data, str(args.batch_tokens)], args.threads)
            runs.append({"side": "ours", "batch_tokens": args.batch_tokens, **_times(ours)})
            for size in args.batch_sizes:
                arguments = [args.model, data, str(size), str(REPO_ROOT / "configs" / "eval" / "lm_eval")]
                theirs = one(args.lm_eval_python, HARNESS, arguments, args.threads)
                runs.append({"side": f"lm_eval {theirs['lm_eval']}", "batch_size": size, **_times(theirs)})
                compared[f"batch_size {size}"] = compare(ours, theirs)
    document = {
        "items": args.items,
        "model": Path(args.model).name,
        "runs": runs,
        "agreement": compared,
        "load_average": os.getloadavg(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, no GPU",
        "date": datetime.now(UTC).date().isoformat(),
        "command": "tools/bench/evaluation_speed.py "
        + " ".join(a if "/bin/python" not in a else "PYTHON" for a in argv),
        "versions": versions(),
    }
    write_json(args.output, document)
    print(json.dumps({"runs": runs, "agreement": compared}, indent=2))
    return 0


def _times(result: dict[str, Any]) -> dict[str, float]:
    return {"wall_seconds": round(result["wall"], 2), "cpu_seconds": round(result["cpu"], 2)}


if __name__ == "__main__":
    sys.exit(run(main))
