"""Several models on the same benchmarks: one table, paired intervals against the first, answers side by side."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.compare import Rate, paired_interval
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.evaluation import Results, measure, plan
from sdrrl_nemo.eval.model_folder import open_model_folder
from sdrrl_nemo.eval.task import Figure

FORMAT = "sdrrl-benchmark-summary/1"
SAMPLES = 2000
ByRole = dict[str, Results]


def evaluate_models(config: BenchmarkConfig) -> str:
    """Run every model of ``config.models``, write summary.json and cases.md; returns the table for the terminal."""
    if not config.models:
        raise SdrrlError("models is empty; name at least one Hugging Face folder, e.g. models.base=work/models/x")
    for role in config.models:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", role):
            raise SdrrlError(f"models: '{role}' cannot be a folder's name; use letters, digits, '.', '_' and '-'")
    output = Path(config.output_dir)
    tasks, skipped = plan(config)
    folders = {role: open_model_folder("model", path, config.templates) for role, path in config.models.items()}
    results = {role: measure(folder, config, tasks, skipped, output / role) for role, folder in folders.items()}
    rows = compare(results, config.seed)
    write_json(
        output / "summary.json",
        {
            "format": FORMAT,
            "models": {role: r["model"] for role, r in results.items()},
            "rows": rows,
            "skipped": skipped,
            "configuration": dataclasses.asdict(config),
            "provenance": provenance(),
        },
    )
    with atomic_write(output / "cases.md") as f:
        f.write(cases(results, config))
    return table(rows, list(results)) + f"\nsummary: {output / 'summary.json'}\ncases: {output / 'cases.md'}"


def compare(results: ByRole, seed: int) -> list[dict[str, Any]]:
    """One row per task: each role's metrics, and for each further role the 95 % interval of the mean item score's
    difference from the first role (paired bootstrap over items; for FLORES that is sentence BLEU)."""
    roles = list(results)
    base = results[roles[0]]["tasks"]
    rows = []
    for task in base:
        # The figure that rests on the items' main score; for FLORES that is BLEU, resampled by sentence BLEU.
        figure = next(f for f in (Figure(**f) for f in base[task]["figures"]) if f.per_item == "score")
        row: dict[str, Any] = {
            "task": task,
            "metric": figure.metric,
            "n": base[task]["n"],
            "values": {role: results[role]["tasks"][task]["metrics"] for role in roles},
            "intervals": {},
            **({"signature": base[task]["signature"]} if "signature" in base[task] else {}),
        }
        for role in roles[1:]:
            pair = [Rate.of_items(results[r]["tasks"][task]["items"], "score", figure.scale) for r in (roles[0], role)]
            found = paired_interval(pair[0], pair[1], SAMPLES, seed, f"{task}.{role}")
            row["intervals"][role] = list(found) if found else None
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], roles: list[str]) -> str:
    """Text table: the first metric of each task, ``*`` where the interval against the first model excludes 0; below it
    how BLEU was computed."""
    head = ["task", "metric", "n", *roles]
    lines = [head]
    for row in rows:
        cells = []
        for role in roles:
            value = row["values"][role][row["metric"]]
            interval = row["intervals"].get(role)
            star = "*" if interval and (interval[0] > 0 or interval[1] < 0) else " "
            cells.append(("-" if value is None else f"{value:.2f}") + star)
        lines.append([row["task"], row["metric"], str(row["n"]), *cells])
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    padded = [
        [c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(x, widths, strict=True))] for x in lines
    ]
    signed = [f"{row['task']}: {row['signature']}" for row in rows if "signature" in row]
    return "\n".join([*("  ".join(cells) for cells in padded), *signed])


def cases(results: ByRole, config: BenchmarkConfig) -> str:
    """Markdown: the first ``cases`` instructions of each target language with every model's answer (appendix D)."""
    roles = list(results)
    parts = ["# Answers side by side\n"]
    for lang in config.languages:
        found = {role: results[role]["tasks"].get(f"off_target.{lang}") for role in roles}
        first = found[roles[0]]
        if first is None:
            continue
        parts.append(f"## {language(lang).name}\n")
        for n, item in enumerate(first["items"][: config.cases]):
            parts.append(f"**{_quoted(item['prompt'])}**\n")
            for role in roles:
                task = found[role]
                assert task is not None
                answer = task["items"][n]
                code = answer["language"] or "too short to judge"
                parts.append(f"- {role} ({code}): {_quoted(answer['prediction']) or '(nothing)'}")
            parts.append("")
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """One line, with Markdown's own signs made harmless."""
    return re.sub(r"([\\`*_#<>\[\]])", r"\\\1", " ".join(text.split()))
