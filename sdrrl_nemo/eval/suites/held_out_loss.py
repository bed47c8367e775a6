"""Held-out loss in nats per answer token: answers in both languages to questions in both, and translations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.eval.backends.answer_loss import SampleLoss, mean_loss, perplexity
from sdrrl_nemo.eval.config import EvalConfig
from sdrrl_nemo.eval.readers.held_out_files import Sample
from sdrrl_nemo.eval.suites.common import arrow, held_out
from sdrrl_nemo.eval.task import HELD_OUT, Entry, Figure, Loss, Scored, Task


@HELD_OUT.register("held_out_loss")
def held_out_loss(config: EvalConfig) -> list[Entry]:
    """Four combinations of question and answer language, two directions of translation; always in fp32."""
    src, tgt, rows = config.source_language, config.target_language, held_out(config)
    asked = ((src, src), (tgt, tgt), (src, tgt), (tgt, src))
    return [
        *(_task("questions", "Loss", q, a, rows.asked(q, a, config.loss.questions)) for q, a in asked),
        *(
            _task("translation", "Translation loss", s, t, samples)
            for (s, t), samples in rows.translations(config.loss.pairs).items()
        ),
    ]


def _task(kind: str, title: str, one: str, other: str, samples: Sequence[Sample]) -> Task:
    name = f"loss.{kind}.{one}-{other}"
    figure = Figure(name, f"{title}, {arrow(one, other)}", other, "nats/token", "lower", "loss")

    def score(outputs: Sequence[Any]) -> Scored:
        losses = [SampleLoss(**o) for o in outputs]
        rows = [
            {"id": s.id, "prediction": None, "score": x.mean, "answer_tokens": x.answer_tokens}
            for s, x in zip(samples, losses, strict=True)
        ]
        return Scored({"loss": mean_loss(losses), "perplexity": perplexity(losses)}, rows, [figure])

    return Task(name, [Loss(s.prompt, s.reference) for s in samples], score, dtype="float32")
