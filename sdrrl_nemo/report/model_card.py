"""README.md of an exported model: what it is, what it was trained on and how, from the run's own files.

Folders of the machine that trained are named by their last part only: the card is made to be passed on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, read_json_object
from sdrrl_nemo.common.run_facts import identity_of, is_mean_over_subsets
from sdrrl_nemo.data.licences import FORBIDS_COMMERCE, FORBIDS_OTHER_MODELS, model_licence, restrictions
from sdrrl_nemo.data.methods import METHODS
from sdrrl_nemo.report.build import SUBSET_MEANING, read_optional, training
from sdrrl_nemo.report.data_card import direction, render
from sdrrl_nemo.report.front_matter import hub_id, model_head, recorded_parts
from sdrrl_nemo.report.run_data import objectives, stats_of_run

FILE = "README.md"


def run_of(checkpoint: Path) -> Path | None:
    """The run directory that a checkpoint lies in; None where it lies alone."""
    run = checkpoint.resolve().parent.parent
    return run if checkpoint.resolve().parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def model_card(base: Path, checkpoint: Path, export: dict[str, Any], evaluation: Path | None = None) -> str:
    """The card as Markdown.

    ``export``: the facts of export.json (weights, dtype, types, max_abs_logit_diff, compared_tokens, versions, notes).
    ``evaluation``: a folder of ``sdrrl evaluate`` whose figures the card shows. What the run or the data do not hold
    any more is said to be unknown. SdrrlError for files that are there and broken.
    """
    run = run_of(checkpoint)
    config = _yaml(run / "config.yaml") if run else {}
    stats = stats_of_run(config)
    parts = recorded_parts(stats) if stats else []
    licence = model_licence(base)
    own = {"role": "model", "name": base.name, "licence": licence}
    terms = restrictions([*parts, *([] if any(own.items() <= part.items() for part in parts) else [own])])
    method = METHODS[stats["method"]].title if stats and stats["method"] in METHODS else "SDRRL"
    lora = int((config.get("lora") or {}).get("rank") or 0)
    more = [str(p["licence"]) for p in parts if _asks_for_more(p, licence)]
    view = {
        "head": model_head(base=_base_id(base), licence=licence, more=more, stats=stats, lora=bool(lora)).rstrip(),
        "title": f"{base.name}, {direction(stats['pairs'])}" if stats else f"{base.name}, trained with SDRRL-NeMo",
        "base": base.name,
        "method": method,
        "direction": direction(stats["pairs"]) if stats else "",
        "stats": stats,
        "kinds": _kinds(stats) if stats else [],
        "weighted": bool(run and objectives(identity_of(run))),
        "settings": _settings(run, config) if run else [],
        "held_out": _held_out(run),
        "figures": _figures(evaluation) if evaluation else [],
        "export": export,
        "types": ", ".join(export.get("types") or [str(export["dtype"])]),
        "notes": [
            str(note).replace(f"{base}/", "").replace(str(base), base.name) for note in export.get("notes") or []
        ],
        "weights": _weights(str(export["weights"]), lora),
        "checkpoint": checkpoint.name,
        "versions": export.get("versions") or {},
        "licence": licence,
        "restrictions": [sentence[0].upper() + sentence[1:] + "." for sentence in terms],
    }
    return render("model_card.md.j2", view, autoescape=False)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise SdrrlError(f"{path}: not valid YAML ({' '.join(str(e).split())})") from None
    return found if isinstance(found, dict) else {}


def _base_id(base: Path) -> str:
    """The id that the base model's config.json says it was loaded from, if it is one."""
    config = read_json(base / "config.json") if (base / "config.json").is_file() else {}
    return hub_id(config.get("_name_or_path"))


def _asks_for_more(part: dict[str, Any], base: str) -> bool:
    """Whether a part of the training data forbids what the base model's licence does not already speak of."""
    stated = str(part.get("licence", ""))
    forbids = part.get("noncommercial") or any(p.search(stated) for p in (FORBIDS_COMMERCE, FORBIDS_OTHER_MODELS))
    return bool(forbids) and stated != base


def _kinds(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a kind of subset (LL, mt, ...), summed over pairs."""
    rows: dict[str, dict[str, Any]] = {}
    for name, own in stats["subsets"].items():
        kind = name.partition(".")[0]
        meaning = SUBSET_MEANING.get(kind, METHODS[kind].title if kind in METHODS else "")
        row = rows.setdefault(kind, {"name": kind, "meaning": meaning, "samples": 0, "tokens": 0, "answer_tokens": 0})
        for key in ("samples", "tokens", "answer_tokens"):
            row[key] += own[key]
    order = list(SUBSET_MEANING)
    return sorted(rows.values(), key=lambda r: order.index(r["name"]) if r["name"] in order else len(order))


def _settings(run: Path, config: dict[str, Any]) -> list[tuple[str, str]]:
    """(setting, value) of a run; the learning rate as it was resolved."""
    trainer, loss, lora = (config.get(k) or {} for k in ("trainer", "loss", "lora"))
    identity = read_optional(run, "identity.json") or {}
    optim = identity.get("optim") or config.get("optim") or {}
    done = training(run)
    rows = done["rows"] if done else []
    layout = ", ".join(f"{k.upper()} {trainer[k]}" for k in ("tp", "pp", "vpp", "cp") if trainer.get(k, 1) > 1)
    found: list[tuple[str, Any]] = [
        ("optimiser steps", rows[-1]["step"] if rows else None),
        ("tokens seen", f"{sum(r.get('tokens', 0) for r in rows):,}" if rows else None),
        ("rows in a step", trainer.get("global_batch_size")),
        ("precision", trainer.get("precision")),
        ("learning rate", optim.get("lr")),
        ("schedule", optim.get("schedule")),
        ("warm-up steps", optim.get("warmup_steps")),
        ("Adam's betas", f"{optim['adam_beta1']}, {optim['adam_beta2']}" if "adam_beta1" in optim else None),
        ("weight decay", optim.get("weight_decay")),
        ("gradients clipped", (done or {}).get("clipping") or _norm(optim.get("clip_grad"))),
        ("loss of a sample", loss.get("sample_reduction")),
        ("loss over subsets", loss.get("normalise")),
        ("weights of subsets", ", ".join(f"{d} {w:g}" for d, w in objectives(identity).items()) or None),
        ("sampling of a blend", _sampling(identity.get("blend"))),
        ("LoRA", f"rank {lora['rank']}, alpha {lora.get('alpha')}" if lora.get("rank") else None),
        ("parallel layout", layout or "one model a process"),
        ("seed", config.get("seed")),
        ("loss of the first and the last step", _ends(rows)),
    ]
    return [(name, str(value)) for name, value in found if value is not None]


def _sampling(blend: dict[str, Any] | None) -> str | None:
    if not blend:
        return None
    how = f"temperature {blend['temperature']:g}" if "temperature" in blend else blend["sampling"]
    return f"{how}, {len(blend['sets'])} sets, {blend['epoch_rows']:,} {blend['rows']} an epoch"


def _norm(clip_grad: Any) -> str | None:
    return None if clip_grad is None else f"at norm {clip_grad}"


def _ends(rows: list[dict[str, Any]]) -> str | None:
    losses = [r["loss"] for r in rows if r.get("loss") is not None]
    return f"{losses[0]:.4f}, {losses[-1]:.4f}" if losses else None


def _held_out(run: Path | None) -> dict[str, Any] | None:
    """Best step and loss on held-out data, of a run that had such data; ``mean``: as the run's other losses."""
    end = read_optional(run, "finished.json")
    if run is None or not end or end.get("best_loss") is None:
        return None
    return end | {"mean": is_mean_over_subsets(identity_of(run))}


def _figures(folder: Path) -> list[dict[str, Any]]:
    """title, unit, base and trained (as texts) of each measure of an evaluation of both models."""
    results = read_json_object(folder / "results.json")
    measures = [m for section in ("loss", "off_target", "translation") for m in results.get(section) or []]
    try:
        found = [
            {"title": m["title"], "unit": m["unit"], **{r: f"{m[r]:.3f}" for r in ("base", "trained")}}
            for m in measures
        ]
    except (KeyError, TypeError, ValueError):
        found = []
    if not found:
        raise SdrrlError(f"{folder}/results.json: holds no measures of a base and a trained model; run sdrrl evaluate")
    return found


def _weights(weights: str, lora: int) -> str:
    names = {"model": "as the forward pass used them", "master": "the optimiser's fp32 copies"}
    return names.get(weights, "fp32 copies where the run kept them") + (", adapters merged" if lora else "")
