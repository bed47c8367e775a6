"""Private parts of other projects that are read and not replaced: there is no public way to the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sdrrl_nemo.compat.registry import register

_ATTENTION = register(
    "attention-kind", "transformers", "a batch of branching texts needs an attention that takes a mask"
)
_STATISTICS = register(
    "bleu-statistics", "sacrebleu", "BLEU and chrF of resampled texts from the counts of each", ">=2.4,<3"
)
_ROUGE = register("rouge-tokens", "multilingual-rouge", "the tokens that ROUGE compares", "==0.0.1")
_JOBS = register("launch-dry-run", "nemo_run", "what a launcher would submit, before it does", "==0.11.1")


def attention_kind(model: Any) -> str:
    """``sdpa``, ``eager`` or another of transformers' names."""
    return str(_ATTENTION.get(model.config, "_attn_implementation"))


def corpus_statistics(metric: Any, hypotheses: list[str], references: list[list[str]]) -> Any:
    """One row of counts a sentence, as sacreBLEU collects them."""
    return _STATISTICS.get(metric, "_extract_corpus_statistics")(hypotheses, references)


@lru_cache(maxsize=64)
def rouge_parts(scorer: Any) -> tuple[Any, Any]:
    """(stemmer, tokenizer) of a scorer of multilingual-rouge."""
    return _ROUGE.get(scorer, "_stemmer"), _ROUGE.get(scorer, "_tokenizer")


def dry_run_request(job: Any) -> Any:
    """What NeMo-Run's dry run of a job would submit."""
    return _JOBS.get(job, "_dryrun_info").request


def job_roles(job: Any) -> Sequence[Any]:
    """Roles of a NeMo-Run job: entry point and arguments."""
    found: Sequence[Any] = _JOBS.get(job, "_executable").roles
    return found
