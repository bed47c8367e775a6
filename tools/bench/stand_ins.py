#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Which stand-ins a translation engine copies: ``tools/bench/stand_ins.py FILE --help``.

Words of real sentences are replaced by stand-ins. ``kept`` is the share of sentences whose stand-ins all come back,
by number of stand-ins. ``chrF`` compares the restored translation with the engine's translation of the untouched
sentence: what a stand-in costs around it. ``cut`` translates what lies between the spans instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import regex

from sdrrl_nemo.common.fileio import read_jsonl
from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.engines import base
from sdrrl_nemo.data.text.segmentation.placeholders import FORMS, around, mask
from sdrrl_nemo.data.text.segmentation.sentences import split_sentences
from sdrrl_nemo.data.text.segmentation.spans import Span

CANDIDATES = ("VAR{}", "X-{}", "[{}]", "100{}1", "http://x{}.y", "X{}", "X{}X", "__{}__", "⟦{}⟧")
SIZES = (1, 2, 3, 5)
_NAME = regex.compile(r"\b(?:\p{Lu}\p{Ll}{2,}|\d[\d,.]*\d|\p{Ll}{6,})\b")


def sample(sentences: Sequence[str], size: int, count: int, seed: int) -> list[tuple[str, list[Span]]]:
    """``count`` sentences with ``size`` of their words as spans: names and numbers, else long words."""
    out: list[tuple[str, list[Span]]] = []
    for sentence in sentences:
        words = [m for m in _NAME.finditer(sentence) if m.start() > 0]
        if len(words) >= size and len(out) < count:
            rng = named_random(seed, size, sentence)
            words.sort(key=lambda m: (m.group().islower(), rng.random()))
            out.append(
                (sentence, sorted((Span(m.start(), m.end(), False) for m in words[:size]), key=lambda s: s.start))
            )
    return out


def _read(path: Path, key: str, code: str) -> list[str]:
    lines = [line for _, row in read_jsonl(path) for line in str(row[key]).split("\n") if "`" not in line]
    found = {s.strip() for line in lines for s in split_sentences(line, code)}
    rng = named_random(0, "measure")
    return sorted((s for s in found if len(s) > 20), key=lambda s: (rng.random(), s))


def measure(engine: base.Translator, sentences: Sequence[str], pair: tuple[str, str], count: int) -> Iterator[str]:
    """One line of a Markdown table a form."""
    from sacrebleu.metrics import CHRF

    items = {size: sample(sentences, size, count, 0) for size in SIZES}
    whole = {s for rows in items.values() for s, _ in rows}
    reference = dict(zip(sorted(whole), engine.translate(sorted(whole), *pair), strict=True))
    chrf = CHRF()
    for form in CANDIDATES:
        kept, restored, wanted = [], [], []
        for rows in items.values():
            masked = [mask(s, spans, form) for s, spans in rows]
            done = [
                m.restore(t) for m, t in zip(masked, engine.translate([m.text for m in masked], *pair), strict=True)
            ]
            kept.append(100 * sum(d is not None for d in done) / max(len(done), 1))
            for (s, _), d in zip(rows, done, strict=True):
                if d is not None:
                    restored.append(d)
                    wanted.append(reference[s])
        score = chrf.corpus_score(restored, [wanted]).score if restored else 0.0
        cells = " | ".join(f"{k:.1f}" for k in (*kept, sum(kept) / len(kept), score))
        yield f"| `{form.format(1)}` | {cells} |"
    restored, wanted = [], []
    for rows in items.values():
        for s, spans in rows:
            parts = list(around(s, spans))
            lines = iter(engine.translate([p for p, fixed in parts if not fixed], *pair))
            restored.append("".join(p if fixed else next(lines) for p, fixed in parts))
            wanted.append(reference[s])
    score = chrf.corpus_score(restored, [wanted]).score
    yield f"| cut | {' | '.join(['100.0'] * (len(SIZES) + 1))} | {score:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="JSONL with sentences of the source language")
    parser.add_argument("--key", default="output", help="field of a row that holds the text")
    parser.add_argument("--translator", default="bergamot", help="registered name")
    parser.add_argument("--pair", default="eng-por", help="source-target, ISO 639-3")
    parser.add_argument("--back", action="store_true", help="translate first, and measure the other direction on that")
    parser.add_argument("--count", type=int, default=100, help="sentences a number of stand-ins")
    args = parser.parse_args()
    from sdrrl_nemo.data import engines as _registered  # noqa: F401

    source, _, target = args.pair.partition("-")
    engine = base.TRANSLATORS.create(args.translator)
    sentences = _read(args.file, args.key, source)
    if args.back:
        sentences = engine.translate(sentences, source, target)
        source, target = target, source
    print(f"{args.translator} {source}-{target}, default forms {FORMS}")
    print("| form | " + " | ".join(f"kept {n}" for n in SIZES) + " | mean | chrF |")
    print("|---|" + "--:|" * (len(SIZES) + 2))
    for row in measure(engine, sentences, (source, target), args.count):
        print(row, flush=True)


if __name__ == "__main__":
    main()
