"""Base against trained on held-out data: both models' results, compared -> results.json and generations.jsonl.

Each model's own results lie below, in the evaluation's one format (<output_dir>/base/results.json and
<output_dir>/trained/results.json); here every measure has both figures, what chance may do to their difference, and a
verdict. Rates are shares (0 to 1) here and percent there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdrrl_nemo.common.fileio import write_json, write_jsonl
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.compare import Measure, Rate, compare_translations, goal_kept, goal_lower, paired_interval
from sdrrl_nemo.eval.config import EvalConfig
from sdrrl_nemo.eval.evaluation import Results, measure, plan
from sdrrl_nemo.eval.model_folder import open_model_folder, require_same_tokenizer
from sdrrl_nemo.eval.suites.common import held_out, identifier
from sdrrl_nemo.eval.task import Figure

FORMAT = "sdrrl-comparison/2"
ROLES = ("base", "trained")


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Compare both models; returns what results.json holds. Run again, it computes only what is missing."""
    tasks, skipped = plan(config)
    trained = open_model_folder("trained", config.trained_model, config.templates)
    # Both are asked in the same words: the trained folder carries the rendering that it was trained with.
    base = open_model_folder("base", config.base_model, rendered=str(trained.tokenizer.chat_template))
    folders = [base, trained]
    require_same_tokenizer(base, trained)
    output = Path(config.output_dir)
    results = {f.role: measure(f, config, tasks, skipped, output / f.role) for f in folders}
    pair = Comparison(config, {role: r["tasks"] for role, r in results.items()})
    document = {**_about(config, results), "tokenizer_sha256": folders[0].tokenizer_sha256, **pair.sections()}
    write_jsonl(output / "generations.jsonl", pair.generations())
    write_json(output / "results.json", document)
    return document


def _about(config: EvalConfig, results: dict[str, Results]) -> dict[str, Any]:
    """What was measured on what; the figures' surroundings."""
    engine, rows = config.language_identifier, held_out(config)
    codes = {"source": config.source_language, "target": config.target_language}
    judged_by = identifier(engine)
    return {
        "format": FORMAT,
        "title": config.title,
        "languages": {side: {"code": code, "name": language(code).name} for side, code in codes.items()},
        "models": {role: r["model"] for role, r in results.items()},
        "held_out": {"questions": len(rows.questions), "pairs": len(rows.pairs), "sha256": rows.files},
        "language_identifier": {"name": engine.name, "identity": judged_by.identity, "licence": judged_by.licence},
        "seconds": {role: {name: t["seconds"] for name, t in r["tasks"].items()} for role, r in results.items()},
        "device": {"type": results["base"]["backend"]["device"], "threads": torch.get_num_threads()},
        "configuration": dataclasses.asdict(config),
        "provenance": provenance(),
    }


@dataclass(frozen=True)
class Comparison:
    """``tasks``: role -> task name -> result, the same tasks for both."""

    config: EvalConfig
    tasks: dict[str, dict[str, Any]]

    def sections(self) -> dict[str, Any]:
        """The figures of results.json."""
        loss, off = self.loss(), self.off_target()
        measures = {m["id"]: Measure.from_dict(m) for m in (*loss, *off)}
        src, tgt = self.config.source_language, self.config.target_language
        goals = [
            goal_lower(f"{language(tgt).name} held-out loss falls", measures[f"loss.questions.{tgt}-{tgt}"], False),
            goal_lower(
                f"Off-target rate of answers in {language(tgt).name} falls", measures[f"off_target.answers.{tgt}"], True
            ),
            goal_kept(
                f"{language(src).name} held-out loss is kept", measures[f"loss.questions.{src}-{src}"],
                self.config.goals.source_loss_tolerance,
            ),
        ]  # fmt: skip
        return {
            "goals": [dataclasses.asdict(g) for g in goals],
            "loss": loss,
            "translation": self.translation(),
            "off_target": off,
            "alignment": self.alignment(),
        }

    def _named(self, *kinds: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and both models' results of the tasks of these kinds, in their order."""
        for name in self.tasks["base"]:
            if name.split(".")[0] in kinds:
                yield name, {role: self.tasks[role][name] for role in ROLES}

    def _measure(self, both: dict[str, Any], number: int, draw: str) -> Measure:
        """Figure ``number`` of a task for both models; ``draw`` names the bootstrap's random numbers."""
        figure = Figure(**both["base"]["figures"][number])
        base, trained = (Rate.of_items(both[role]["items"], figure.per_item) for role in ROLES)
        share = figure.unit == "%"
        values = [r.total for r in (base, trained)] if share else [both[r]["metrics"][figure.metric] for r in ROLES]
        interval = paired_interval(base, trained, self.config.goals.bootstrap_samples, self.config.seed, draw)
        unit = "rate" if share else figure.unit
        return Measure(figure.id, figure.title, unit, figure.better, values[0], values[1], interval)

    def loss(self) -> list[dict[str, Any]]:
        """Six rows: four combinations of question and answer language, two translation directions."""
        out = []
        for name, both in self._named("loss"):
            kind, direction = name.split(".")[1:]
            asked, answered = direction.split("-")
            items = both["base"]["items"]
            out.append(
                {
                    **self._measure(both, 0, name).as_dict(),
                    "kind": kind,
                    "question_language": asked,
                    "answer_language": answered,
                    "samples": len(items),
                    "answer_tokens": sum(i["answer_tokens"] for i in items),
                    "perplexity": {role: t["metrics"]["perplexity"] for role, t in both.items()},
                }
            )
        return out

    def translation(self) -> list[dict[str, Any]]:
        """BLEU and chrF of both directions, with the p-value of sacreBLEU's paired test."""
        out = []
        for name, both in self._named("translations"):
            texts = [[i["prediction"] for i in both[role]["items"]] for role in ROLES]
            references = [i["reference"] for i in both["base"]["items"]]
            samples = self.config.goals.bootstrap_samples
            titles = {f["unit"]: f["title"] for f in both["base"]["figures"]}
            how = next(f["options"] for f in both["base"]["figures"] if f["kind"] == "bleu")
            for s in compare_translations(texts[0], texts[1], references, samples=samples, **how):
                found = Measure(
                    f"{s.metric}.{name.split('.')[1]}", titles[s.metric], s.metric, "higher", s.base, s.trained,
                    p_value=s.p_value,
                )  # fmt: skip
                out.append({**found.as_dict(), "samples": len(references), "signature": s.signature})
        return out

    def off_target(self) -> list[dict[str, Any]]:
        """Answers in both languages, translations in both directions."""
        out = []
        for name, both in self._named("answers", "translations"):
            kind, languages = name.split(".")
            details = {
                role: {
                    "texts": t["n"],
                    "judged": t["judged"],
                    "too_short": t["n"] - t["judged"],
                    "off": sum(i["score"] == 1.0 for i in t["items"]),
                    "finished": sum(i["finished"] for i in t["items"]),
                    "languages": t["languages"],
                    "language_of": [i["language"] for i in t["items"]],
                }
                for role, t in both.items()
            }
            about = {"task": name, "kind": kind, "expected": languages.rsplit("-", maxsplit=1)[-1], "details": details}
            out.append({**self._measure(both, 0, name).as_dict(), **about})
        return out

    def alignment(self) -> dict[str, Any]:
        """Retrieval and cosine measures, and the t-SNE map of each model."""
        [(_, both)] = self._named("alignment")
        maps = {role: {side: t["tsne"][side] for side in ("source", "target")} for role, t in both.items()}
        cosines = ("parallel", "non_parallel")
        return {
            "questions": both["base"]["n"],
            "measures": [self._measure(both, n, draw).as_dict() for n, draw in enumerate(("precision_at_1", "margin"))],
            "cosine": {role: {k: t["metrics"][k] for k in cosines} for role, t in both.items()},
            "tsne": {"perplexity": self.config.alignment.perplexity, **maps},
            "texts": both["base"]["texts"],
        }

    def generations(self) -> list[dict[str, Any]]:
        """Rows of generations.jsonl: every generated text of both models beside its prompt and reference."""
        rows = []
        for name, both in self._named("answers", "translations"):
            for n, item in enumerate(both["base"]["items"]):
                row: dict[str, Any] = {"task": name, "key": item["id"], "question": item["prompt"]}
                row["reference"] = item["reference"]
                for role in ROLES:
                    said = both[role]["items"][n]
                    row[role] = {"text": said["prediction"], **{k: said[k] for k in ("tokens", "finished", "language")}}
                rows.append(row)
        return rows
