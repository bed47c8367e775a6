"""Translations of held-out pairs in both directions: BLEU and chrF, and how often they are in another language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdrrl_nemo.eval.compare import make_metrics
from sdrrl_nemo.eval.config import EvalConfig
from sdrrl_nemo.eval.readers.held_out_files import Sample
from sdrrl_nemo.eval.suites.common import arrow, bleu_options, held_out, identifier
from sdrrl_nemo.eval.suites.off_target import answering, judge
from sdrrl_nemo.eval.task import HELD_OUT, Entry, Figure, Scored, Task


@HELD_OUT.register("held_out_translation")
def held_out_translation(config: EvalConfig) -> list[Entry]:
    """Greedy answers to Table 1's instruction; the tokeniser of BLEU is tried before anything is generated."""
    judged_by = identifier(config.language_identifier)

    def task(one: str, other: str, samples: Sequence[Sample]) -> Task:
        direction = f"{one}-{other}"
        name = f"translations.{direction}"
        how = bleu_options(config, other)
        metrics = make_metrics(**how)
        options: dict[str, dict[str, Any]] = {"BLEU": how, "chrF": {}}

        def score(outputs: Sequence[Any]) -> Scored:
            least, what = config.off_target.min_letters, "translations into"
            found = judge(samples, outputs, judged_by, other, least, f"off_target.{name}", what)
            texts, references = [o["text"] for o in outputs], [s.reference for s in samples]
            values = {k.lower(): float(m.corpus_score(texts, [references]).score) for k, m in metrics.items()}
            figures = [
                Figure(
                    f"{k.lower()}.{direction}", f"{k}, {arrow(one, other)}", other, k, "higher", k.lower(),
                    kind=k.lower(), per_item="", options=options[k],
                )
                for k in metrics
            ]  # fmt: skip
            signatures = {k.lower(): str(m.get_signature()) for k, m in metrics.items()}
            extra = {**found.extra, "signatures": signatures}
            return Scored({**found.metrics, **values}, found.items, [*found.figures, *figures], extra)

        return answering(config, name, samples, score)

    return [task(*pair, samples) for pair, samples in held_out(config).translations(config.generation.pairs).items()]
