"""results.json, generations.jsonl and, where they exist, the run's and the data's records -> one HTML file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, read_json, read_jsonl
from sdrrl_nemo.common.run_facts import clipping_of, identity_of, is_mean_over_subsets, waiting_of
from sdrrl_nemo.report import charts
from sdrrl_nemo.report.console import figure

SUBSET_MEANING = {
    "LL": "source question, source answer",
    "TL": "target question, source answer",
    "LT": "source question, target answer",
    "TT": "target question, target answer",
    "mt": "translation, both directions",
    "comp": "completion of a target sentence",
}


def write_report(output_dir: str | Path, run_dir: str | Path | None, data_dir: str | Path | None) -> Path:
    """Render ``report.html`` in ``output_dir`` from the results lying there; returns its path.

    ``run_dir`` and ``data_dir`` may be missing: their sections then say so.
    """
    output = Path(output_dir)
    results = read_json(output / "results.json")
    generations = [row for _, row in read_jsonl(output / "generations.jsonl")]
    html = render(results, generations, training(run_dir), read_optional(data_dir, "stats.json"))
    path = output / "report.html"
    with atomic_write(path) as f:
        f.write(html)
    return path


def read_optional(folder: str | Path | None, name: str) -> dict[str, Any] | None:
    """A JSON object beside a run or data set; None where there is no such file."""
    if folder is None or not (Path(folder) / name).is_file():
        return None
    found = read_json(Path(folder) / name)
    if not isinstance(found, dict):
        raise SdrrlError(f"{Path(folder) / name}: expected a JSON object")
    return found


def training(run_dir: str | Path | None) -> dict[str, Any] | None:
    """What a run kept of itself: metrics rows (one a step, the last one after a resume), how often gradients were
    clipped, how long steps waited for data, whether losses are means over subsets, configuration, provenance."""
    if run_dir is None or not (Path(run_dir) / "metrics.jsonl").is_file():
        return None
    folder = Path(run_dir)
    steps: dict[int, dict[str, Any]] = {}
    for n, row in read_jsonl(folder / "metrics.jsonl"):
        if not isinstance(row.get("step"), int):
            raise SdrrlError(f"{folder / 'metrics.jsonl'}, line {n}: no whole number under 'step'")
        steps[row["step"]] = row
    config, identity = folder / "config.yaml", identity_of(folder)
    rows = [steps[k] for k in sorted(steps)]
    return {
        "path": str(folder),
        "rows": rows,
        "clipping": clipping_of(identity, rows),
        "waited": waiting_of(rows),
        "mean": is_mean_over_subsets(identity),
        "config": config.read_text(encoding="utf-8") if config.is_file() else None,
        "provenance": read_optional(folder, "provenance.json"),
    }


def page_environment(autoescape: bool = True) -> jinja2.Environment:
    """For the templates beside this file: an unknown name is an error; ``autoescape`` for HTML, where everything from
    outside is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(
    results: dict[str, Any],
    generations: list[dict[str, Any]],
    run: dict[str, Any] | None,
    stats: dict[str, Any] | None,
) -> str:
    """The page as text; everything from outside is escaped."""
    environment = page_environment()
    environment.filters.update(figure=figure, signed=signed, count=count, percent=percent)
    names = {results["languages"][side]["code"]: results["languages"][side]["name"] for side in ("source", "target")}
    template = environment.get_template("report.html.j2")
    return template.render(
        r=results,
        names=names,
        charts=charts.all_charts(results, names),
        curves=charts.training_curves(run["rows"], SUBSET_MEANING, run["mean"]) if run else [],
        run=run,
        training_table=training_table(run["rows"]) if run else [],
        stats=stats,
        reasons=drop_reasons(stats) if stats else [],
        subset_meaning=SUBSET_MEANING,
        samples=pick_samples(generations, results["configuration"]["samples"], names),
        configuration=to_plain_yaml(results["configuration"]),
    )


def signed(value: float | None, unit: str) -> str:
    """A difference with its sign; rates in percentage points."""
    if value is None:
        return "–"
    if unit == "rate":
        return f"{100 * value:+.1f} pp".replace("-", "−")
    return (f"{value:+.2f}" if unit in ("BLEU", "chrF") else f"{value:+.3f}").replace("-", "−")


def count(value: Any) -> str:
    """Whole numbers with separators, other numbers short, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def percent(value: float | None) -> str:
    """A share as a signed percentage."""
    return "–" if value is None else f"{value:+.1%}".replace("-", "−")


def to_plain_yaml(configuration: dict[str, Any]) -> str:
    """The configuration as YAML, keys in their own order."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(configuration))


def drop_reasons(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per stage and reason, most frequent first within a stage."""
    return [
        {"stage": stage["name"], "reason": reason, "rows": n, "share": n / stage["in"] if stage.get("in") else None}
        for stage in stats.get("stages", [])
        for reason, n in sorted((stage.get("dropped") or {}).items(), key=lambda kv: (-kv[1], kv[0]))
    ]


def training_table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """First tenth against last tenth of the steps, for the total and each subset."""
    tenth = max(1, len(rows) // 10)
    out = []
    for key in charts.loss_keys(rows):
        first, last = (_mean([r.get(key) for r in part]) for part in (rows[:tenth], rows[-tenth:]))
        if first is not None or last is not None:
            out.append({"key": key, "first": first, "last": last})
    return out


def _mean(values: list[Any]) -> float | None:
    finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return math.fsum(finite) / len(finite) if finite else None


def pick_samples(generations: list[dict[str, Any]], limit: int, names: dict[str, str]) -> list[dict[str, Any]]:
    """The first ``limit`` rows of each task in file order: nobody chose them by their looks."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in generations:
        tasks.setdefault(row["task"], []).append(row)
    out = []
    for task, rows in tasks.items():
        kind, languages = task.split(".")
        codes = [names.get(c, c) for c in languages.split("-")]
        title = f"Questions in {codes[0]}" if kind == "answers" else f"Translation {codes[0]} → {codes[-1]}"
        if limit:
            out.append({"title": title, "expected": languages.rsplit("-", maxsplit=1)[-1], "rows": rows[:limit]})
    return out
