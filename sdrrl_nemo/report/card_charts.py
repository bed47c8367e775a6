"""The charts of the data card, drawn with the plain shapes of svg.py."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from sdrrl_nemo.report.card_facts import FULLNESS, SCORE_BIN, Facts, Scores, base_name, binned, log_edges
from sdrrl_nemo.report.svg import BarRow, Bars, bar_rows, histogram

QUESTION, ANSWER, KEPT, DROPPED, SPARE = 1, 2, 3, 2, 7
"""Colour classes, the same in every chart."""
MOST_BINS = 24


def subset_chart(kinds: list[dict[str, Any]]) -> Markup:
    """Tokens of questions and answers, one bar for each kind of subset."""
    rows = [
        BarRow(
            k["name"],
            [
                ("question tokens", k["tokens"] - k["answer_tokens"], QUESTION),
                ("answer tokens", k["answer_tokens"], ANSWER),
            ],
            f"{k['tokens']:,} tokens, {k['samples']:,} samples",
        )
        for k in kinds
    ]
    return bar_rows("Tokens of each subset", rows, shared=True)


def stage_chart(title: str, stages: list[dict[str, Any]]) -> Markup:
    """Kept and dropped, as shares of what entered each stage."""
    rows = [
        BarRow(
            s["name"],
            [
                ("kept", s["out"], KEPT),
                ("dropped", s["in"] - s["out"] - s["spare"], DROPPED),
                ("more than asked for", s["spare"], SPARE),
            ],
            f"{s['out']:,} of {s['in']:,} {s['unit']} kept",
        )
        for s in stages
        if s["in"]
    ]
    return bar_rows(title, rows, shared=False)


def reason_chart(reasons: list[dict[str, Any]], most: int = 15) -> Markup:
    """The most frequent reasons, one scale."""
    top = sorted(reasons, key=lambda r: (-r["rows"], r["stage"], r["reason"]))[:most]
    rows = [BarRow(f"{r['stage']}: {r['reason']}", [("dropped", r["rows"], DROPPED)], f"{r['rows']:,}") for r in top]
    return bar_rows("Why rows were dropped", rows, shared=True)


def length_charts(facts: Facts, kinds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One histogram of question and answer tokens for each kind of subset, all on the same logarithmic bins."""
    tables = facts.lengths.question, facts.lengths.answer
    longest = max(int(np.flatnonzero(t.any(axis=0)).max(initial=0)) for t in tables)
    edges = log_edges(longest)
    first = next((i for i in range(len(edges) - 1) if any(t[:, edges[i] : edges[i + 1]].any() for t in tables)), 0)
    edges = edges[first:]
    bins = [str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in pairwise(edges)]
    ticks = [(float(i), f"{e:,}") for i, e in enumerate(edges) if e & (e - 1) == 0]
    ticks = ticks[len(ticks) % 2 :: 2] if len(ticks) > 7 else ticks
    out = []
    for kind in kinds:
        mine = [i for i, name in enumerate(facts.names) if base_name(name) == kind["name"]]
        question, answer = (binned(t[mine].sum(axis=0), edges) for t in tables)
        series = [Bars("question tokens", question, QUESTION), Bars("answer tokens", answer, ANSWER)]
        title = f"{kind['name']}: {kind['meaning']}" if kind["meaning"] else kind["name"]
        svg = histogram(title, bins, series, ticks, ("tokens, logarithmic bins", "% of samples"))
        out.append({"title": title, "svg": svg})
    return out


def fullness_chart(facts: Facts) -> Markup:
    """Packs by the share of their tokens that is used."""
    total = int(facts.lengths.fullness.sum())
    rows = []
    for (a, b), n in zip(pairwise(FULLNESS), map(int, facts.lengths.fullness), strict=True):
        label = f"{100 * a:.0f} to {100 * b:.0f} % full" if a else f"less than {100 * b:.0f} % full"
        rows.append(BarRow(label, [("packs", n, KEPT)], f"{n:,} packs, {100 * n / max(total, 1):.1f} %"))
    return bar_rows("Packs by fullness", rows[::-1], shared=True)


def score_chart(scores: Scores) -> Markup:
    """Distribution of the quality scores of questions and answers with the threshold."""
    both: Counter[int] = Counter()
    for counter in scores.counts.values():
        both.update(counter)
    if not both:
        return Markup("")
    low, high = min(both), max(both) + 1
    step = next(s for s in (1, 2, 5, 10, 20, 50, *(10**k for k in range(2, 12))) if (high - low) / s <= MOST_BINS)
    begin, end = low // step, -(-high // step)
    bins = [f"{b * step * SCORE_BIN:.2f} to {(b + 1) * step * SCORE_BIN:.2f}" for b in range(begin, end)]
    series = []
    for (name, counter), colour in zip(scores.counts.items(), (QUESTION, ANSWER), strict=True):
        counts = [0] * (end - begin)
        for b, n in counter.items():
            counts[b // step - begin] += n
        series.append(Bars(f"{name}s", counts, colour))
    every = max(1, round((end - begin) / 5))
    ticks = [(float(i), f"{(begin + i) * step * SCORE_BIN:.2f}") for i in range(0, end - begin + 1, every)]
    at = scores.tau / SCORE_BIN / step - begin
    mark = (at, f"tau = {scores.tau:g}") if 0 <= at <= end - begin else None
    return histogram(f"Quality scores, {scores.pair}", bins, series, ticks, ("score", "% of translations"), mark)


def language_chart(rows: list[dict[str, Any]]) -> Markup:
    """What the language identifier took the translations for, one bar for each pair."""
    bars = [
        BarRow(
            r["pair"] or "all",
            [("kept", r["kept"], KEPT), *((f"dropped as {c}", n, DROPPED) for c, n in r["others"])],
            f"{100 * r['kept'] / r['entered']:.1f} % kept",
        )
        for r in rows
        if r["entered"]
    ]
    return bar_rows("Language of the translations", bars, shared=False)
