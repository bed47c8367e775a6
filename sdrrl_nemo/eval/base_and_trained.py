"""Stored task results of both models -> the sections of results.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdrrl_nemo.data.engines.base import LanguageIdentifier
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.backends.answer_loss import SampleLoss, mean_loss, perplexity
from sdrrl_nemo.eval.compare import Measure, Rate, goal_kept, goal_lower, paired_interval
from sdrrl_nemo.eval.config import EvalConfig
from sdrrl_nemo.eval.readers.held_out_files import HeldOut
from sdrrl_nemo.eval.scorers.alignment import alignment, map_points, tsne
from sdrrl_nemo.eval.scorers.off_target import OffTarget, off_target
from sdrrl_nemo.eval.store import unpack_array
from sdrrl_nemo.eval.tasks import pair_samples, question_samples
from sdrrl_nemo.eval.translation import compare_translations

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Scorer:
    """Everything the sections need; ``base`` and ``trained`` map task name to stored result."""

    config: EvalConfig
    held_out: HeldOut
    identifier: LanguageIdentifier
    base: Results
    trained: Results

    def _interval(self, base: Rate, trained: Rate, name: str) -> tuple[float, float] | None:
        return paired_interval(base, trained, self.config.goals.bootstrap_samples, self.config.seed, name)

    def _name(self, code: str) -> str:
        return language(code).name

    def loss(self) -> list[dict[str, Any]]:
        """Six rows: four combinations of question and answer language, two translation directions."""
        out = []
        for name in [n for n in self.base if n.startswith("loss.")]:
            kind, direction = name.split(".")[1:]
            asked, answered = direction.split("-")
            arrow = f"{self._name(asked)} → {self._name(answered)}"
            title = f"Loss, {arrow}" if kind == "questions" else f"Translation loss, {arrow}"
            values = {
                role: [SampleLoss(m, n) for m, n in zip(r[name]["mean"], r[name]["answer_tokens"], strict=True)]
                for role, r in (("base", self.base), ("trained", self.trained))
            }
            measure = Measure(
                id=name,
                title=title,
                unit="nats/token",
                better="lower",
                base=mean_loss(values["base"]),
                trained=mean_loss(values["trained"]),
                interval=self._interval(
                    Rate.mean([x.mean for x in values["base"]]), Rate.mean([x.mean for x in values["trained"]]), name
                ),
            )
            out.append(
                {
                    **measure.as_dict(),
                    "kind": kind,
                    "question_language": asked,
                    "answer_language": answered,
                    "samples": len(values["base"]),
                    "answer_tokens": sum(x.answer_tokens for x in values["base"]),
                    "perplexity": {role: perplexity(v) for role, v in values.items()},
                }
            )
        return out

    def translation(self) -> list[dict[str, Any]]:
        """BLEU and chrF of both directions."""
        out = []
        for (s, t), sample in pair_samples(self.held_out, self.config, self.config.generation.pairs).items():
            name = f"translations.{s}-{t}"
            texts = [[a["text"] for a in r[name]["answers"]] for r in (self.base, self.trained)]
            scores = compare_translations(
                texts[0], texts[1], sample.answers, self.config.bleu_tokenize, self.config.goals.bootstrap_samples
            )
            for score in scores:
                measure = Measure(
                    id=f"{score.metric}.{s}-{t}",
                    title=f"{score.metric}, {self._name(s)} → {self._name(t)}",
                    unit=score.metric,
                    better="higher",
                    base=score.base,
                    trained=score.trained,
                    p_value=score.p_value,
                )
                out.append({**measure.as_dict(), "samples": len(sample.keys), "signature": score.signature})
        return out

    def off_target(self) -> list[dict[str, Any]]:
        """Answers in both languages, translations in both directions."""
        out = []
        for name in [n for n in self.base if n.startswith(("answers.", "translations."))]:
            kind, languages = name.split(".")
            expected = languages.rsplit("-", maxsplit=1)[-1]
            judged = {
                role: off_target(
                    self.identifier,
                    [a["text"] for a in r[name]["answers"]],
                    expected,
                    self.config.off_target.min_letters,
                )
                for role, r in (("base", self.base), ("trained", self.trained))
            }
            what = "answers to questions in" if kind == "answers" else "translations into"
            measure = Measure(
                id=f"off_target.{name}",
                title=f"Off-target rate, {what} {self._name(expected)}",
                unit="rate",
                better="lower",
                base=judged["base"].rate,
                trained=judged["trained"].rate,
                interval=self._interval(_rate(judged["base"]), _rate(judged["trained"]), name),
            )
            finished = {
                role: sum(a["finished"] for a in r[name]["answers"])
                for role, r in (("base", self.base), ("trained", self.trained))
            }
            details = {
                role: {
                    "texts": len(j.languages),
                    "judged": j.judged,
                    "too_short": j.too_short,
                    "off": j.off,
                    "finished": finished[role],
                    "languages": j.counts(),
                    "language_of": j.languages,
                }
                for role, j in judged.items()
            }
            out.append({**measure.as_dict(), "task": name, "kind": kind, "expected": expected, "details": details})
        return out

    def alignment(self) -> dict[str, Any]:
        """Retrieval and cosine measures, and the t-SNE map of each model."""
        src, tgt = self.config.source_language, self.config.target_language
        questions = question_samples(self.held_out, self.config, self.config.alignment.questions)
        found, maps = {}, {}
        for role, r in (("base", self.base), ("trained", self.trained)):
            a, b = (unpack_array(r[f"states.{code}"]["states"]) for code in (src, tgt))
            found[role] = alignment(a, b)
            flat = tsne(a, b, self.config.alignment.perplexity, self.config.seed)
            maps[role] = {"source": map_points(flat[0]), "target": map_points(flat[1])}
        base, trained = found["base"], found["trained"]
        measures = [
            Measure(
                "alignment.precision_at_1", "Retrieval of parallel questions (P@1)", "rate", "higher",
                base.precision_at_1, trained.precision_at_1,
                interval=self._interval(Rate.mean(base.hits), Rate.mean(trained.hits), "precision_at_1"),
            ),
            Measure(
                "alignment.margin", "Cosine of parallel minus non-parallel questions", "cosine", "higher",
                base.margin, trained.margin,
                interval=self._interval(Rate.mean(base.margins), Rate.mean(trained.margins), "margin"),
            ),
        ]  # fmt: skip
        return {
            "questions": len(base.hits),
            "measures": [m.as_dict() for m in measures],
            "cosine": {role: {"parallel": a.parallel, "non_parallel": a.non_parallel} for role, a in found.items()},
            "tsne": {"perplexity": self.config.alignment.perplexity, **maps},
            "texts": {"source": questions[src, src].questions, "target": questions[tgt, tgt].questions},
        }

    def goals(self, loss: list[dict[str, Any]], off: list[dict[str, Any]]) -> list[dict[str, object]]:
        """What the training is for, checked against the figures."""
        src, tgt = self.config.source_language, self.config.target_language
        by_id = {m["id"]: Measure.from_dict(m) for m in (*loss, *off)}
        return [
            goal_lower(
                f"{self._name(tgt)} held-out loss falls", by_id[f"loss.questions.{tgt}-{tgt}"], percent=False
            ).as_dict(),
            goal_lower(
                f"Off-target rate of answers in {self._name(tgt)} falls",
                by_id[f"off_target.answers.{tgt}"],
                percent=True,
            ).as_dict(),
            goal_kept(
                f"{self._name(src)} held-out loss is kept",
                by_id[f"loss.questions.{src}-{src}"],
                self.config.goals.source_loss_tolerance,
            ).as_dict(),
        ]

    def generations(self, off: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of generations.jsonl: every generated text of both models beside its prompt and reference."""
        language_of = {o["task"]: {role: d["language_of"] for role, d in o["details"].items()} for o in off}
        answers = question_samples(self.held_out, self.config, self.config.generation.questions)
        pairs = pair_samples(self.held_out, self.config, self.config.generation.pairs)
        src, tgt = self.config.source_language, self.config.target_language
        samples = {f"answers.{c}": answers[c, c] for c in (tgt, src)}
        samples |= {f"translations.{s}-{t}": x for (s, t), x in pairs.items()}
        rows = []
        for name, sample in samples.items():
            for i, key in enumerate(sample.keys):
                row: dict[str, Any] = {
                    "task": name, "key": key, "question": sample.questions[i], "reference": sample.answers[i]
                }  # fmt: skip
                for role, r in (("base", self.base), ("trained", self.trained)):
                    row[role] = {**r[name]["answers"][i], "language": language_of[name][role][i]}
                rows.append(row)
        return rows


def _rate(x: OffTarget) -> Rate:
    return Rate(
        [float(c is not None and c != x.expected) for c in x.languages], [float(c is not None) for c in x.languages]
    )
