"""Results of the benchmark runner -> measures, with the paper's table that has the same figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.study.aggregate import statistics
from sdrrl_nemo.study.measures import BENCHMARK, Measure

TITLES = {
    "belebele": "Belebele, accuracy by likelihood",
    "belebele_letter": "Belebele, accuracy of the written letter",
    "mkqa": "MKQA, token F1",
    "off_target": "Off-target rate, instructions",
}
PUBLISHED = {"belebele": ("BELEBELE", "accuracy"), "mkqa": ("MKQA", "F1")}


def from_benchmarks(tasks: dict[str, Any], source: str, target: str, tokenize: str) -> list[Measure]:
    """Measures of every task, in the tasks' order; a task of a kind that is not known here brings none."""
    out: list[Measure] = []
    for name, task in tasks.items():
        kind, what = name.split(".", maxsplit=1)
        if kind in TITLES:
            out.append(_plain(kind, what, task["items"], source))
        elif kind == "xlsum":
            out += _summaries(what, task["items"], source)
        elif kind == "flores":
            out += _translations(what, task["items"], source, tokenize)
        elif kind == "alignment":
            out += _alignment(what, task["items"], target)
    return out


def _keys(items: Sequence[dict[str, Any]]) -> list[str]:
    return [str(x["id"]) for x in items]


def _direction(lang: str, source: str) -> str:
    return "english" if lang == source else "target"


def _plain(kind: str, lang: str, items: Sequence[dict[str, Any]], source: str) -> Measure:
    """Per cent of the items' mean score; an item without score (too short to judge) has no weight."""
    numbers = [[0.0, 0.0] if x["score"] is None else [100.0 * float(x["score"]), 1.0] for x in items]
    table = PUBLISHED.get(kind)
    return Measure(
        id=f"{kind}.{lang}",
        group=BENCHMARK,
        title=f"{TITLES[kind]}, {language(lang).name}",
        language=lang,
        unit="%",
        better="lower" if kind == "off_target" else "higher",
        kind="mean",
        keys=_keys(items),
        items=numbers,
        published=(*table, _direction(lang, source)) if table else None,
    )


def _summaries(lang: str, items: Sequence[dict[str, Any]], source: str) -> list[Measure]:
    out = []
    for metric, field in (("ROUGE-1", "rouge1"), ("ROUGE-L", "score")):
        out.append(
            Measure(
                id=f"xlsum.{lang}.{'rouge1' if field == 'rouge1' else 'rougeL'}",
                group=BENCHMARK,
                title=f"XL-Sum, {metric} F1, {language(lang).name}",
                language=lang,
                unit="%",
                better="higher",
                kind="mean",
                keys=_keys(items),
                items=[[100.0 * float(x[field]), 1.0] for x in items],
                published=("XL-SUM", metric, _direction(lang, source)),
            )
        )
    return out


def _translations(direction: str, items: Sequence[dict[str, Any]], source: str, tokenize: str) -> list[Measure]:
    """BLEU with the runner's tokeniser, chrF++, and COMET where the items carry it."""
    one, other = direction.split("-")
    arrow = f"{language(one).name} → {language(other).name}"
    towards = "en-xx" if one == source else "xx-en"
    texts, references = [x["prediction"] for x in items], [x["reference"] for x in items]
    common: dict[str, Any] = {"group": BENCHMARK, "language": other, "better": "higher", "keys": _keys(items)}
    out = [
        Measure(
            id=f"flores.{direction}.bleu",
            title=f"FLORES, BLEU, {arrow}",
            unit="BLEU",
            kind="bleu",
            items=statistics(BLEU(tokenize=tokenize), texts, references),
            published=("FLORES", "BLEU", towards),
            **common,
        ),
        Measure(
            id=f"flores.{direction}.chrf",
            title=f"FLORES, chrF++, {arrow}",
            unit="chrF++",
            kind="chrf",
            items=statistics(CHRF(word_order=2), texts, references),
            **common,
        ),
    ]
    if items and all(x.get("comet") is not None for x in items):
        out.append(
            Measure(
                id=f"flores.{direction}.comet",
                title=f"FLORES, COMET, {arrow}",
                unit="COMET",
                kind="mean",
                items=[[100.0 * float(x["comet"]), 1.0] for x in items],
                published=("FLORES", "COMET", towards),
                **common,
            )
        )
    return out


def _alignment(pair: str, items: Sequence[dict[str, Any]], target: str) -> list[Measure]:
    common: dict[str, Any] = {"group": BENCHMARK, "language": target, "better": "higher", "kind": "mean"}
    out = []
    for name, title, unit, factor, field in (
        ("precision_at_1", "Retrieval of parallel instructions (P@1)", "%", 100.0, "score"),
        ("margin", "Cosine of parallel minus other instructions", "cosine", 1.0, "margin"),
    ):
        out.append(
            Measure(
                id=f"instructions.{pair}.{name}",
                title=title,
                unit=unit,
                keys=_keys(items),
                items=[[factor * float(x[field]), 1.0] for x in items],
                **common,
            )
        )
    return out
