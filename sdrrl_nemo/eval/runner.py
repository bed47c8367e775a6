"""The whole evaluation, top down: read, run both models, score, write results.json and generations.jsonl."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers

import sdrrl_nemo.data.engines  # noqa: F401  registers the embedded backends
from sdrrl_nemo.common.fileio import write_json, write_jsonl
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.data.validation import import_plugins
from sdrrl_nemo.eval.base_and_trained import Scorer
from sdrrl_nemo.eval.config import EvalConfig, check
from sdrrl_nemo.eval.model_folder import choose_device, open_model_folder, require_same_tokenizer
from sdrrl_nemo.eval.readers.held_out_files import read_held_out
from sdrrl_nemo.eval.scorers.alignment import check_perplexity
from sdrrl_nemo.eval.store import TaskStore
from sdrrl_nemo.eval.tasks import first, plan, run_tasks
from sdrrl_nemo.eval.translation import make_metrics

FORMAT = "sdrrl-eval/1"


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Compare both models; returns what results.json holds. Run again, it computes only what is missing."""
    check(config)
    transformers.logging.set_verbosity_error()
    import_plugins(config.plugins)
    identifier = LANGUAGE_IDENTIFIERS.create(config.language_identifier.name, **config.language_identifier.options)
    held_out = read_held_out(config.data_dir, config.source_language, config.target_language)
    # What only the last steps need is checked before the long ones.
    make_metrics(config.bleu_tokenize)
    check_perplexity(config.alignment.perplexity, 2 * len(first(held_out.questions, config.alignment.questions)))
    base = open_model_folder("base", config.base_model)
    trained = open_model_folder("trained", config.trained_model)
    require_same_tokenizer(base, trained)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)

    results = {}
    for folder in (base, trained):
        tasks = plan(folder, held_out, config, device)
        results[folder.role] = run_tasks(folder, tasks, TaskStore(config.output_dir, folder.fingerprint), device)

    scorer = Scorer(config, held_out, identifier, results["base"], results["trained"])
    loss, translation, off, alignment = scorer.loss(), scorer.translation(), scorer.off_target(), scorer.alignment()
    document = {
        "format": FORMAT,
        "title": config.title,
        "languages": {
            "source": {"code": config.source_language, "name": language(config.source_language).name},
            "target": {"code": config.target_language, "name": language(config.target_language).name},
        },
        "models": {f.role: {"path": str(f.path), "fingerprint": f.fingerprint} for f in (base, trained)},
        "tokenizer_sha256": base.tokenizer_sha256,
        "held_out": {
            "questions": len(held_out.questions), "pairs": len(held_out.pairs), "sha256": held_out.files
        },
        "language_identifier": {
            "name": config.language_identifier.name, "identity": identifier.identity, "licence": identifier.licence
        },
        "goals": scorer.goals(loss, off),
        "loss": loss,
        "translation": translation,
        "off_target": off,
        "alignment": alignment,
        "seconds": {role: {name: r["seconds"] for name, r in tasks.items()} for role, tasks in results.items()},
        "device": {"type": device.type, "threads": torch.get_num_threads()},
        "configuration": dataclasses.asdict(config),
        "provenance": provenance(),
    }  # fmt: skip
    output = Path(config.output_dir)
    write_jsonl(output / "generations.jsonl", scorer.generations(off))
    write_json(output / "results.json", document)
    return document
