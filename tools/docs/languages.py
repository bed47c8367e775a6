#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Print docs/languages.md: the table of languages, and what the engines that come in packages have for each.

python tools/docs/languages.py > docs/languages.md     # fetches Debian's packages of each engine once
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.engines.corpora.gnome_help import GnomeHelp
from sdrrl_nemo.data.engines.dictionaries.freedict import FreeDict
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.engines.translate.apertium import ApertiumTranslator
from sdrrl_nemo.data.engines.translate.bergamot import BergamotTranslator
from sdrrl_nemo.data.text.languages import LANGUAGES, Language
from sdrrl_nemo.eval.scorers.bleu import corpus_score, tokeniser

HEAD = """# Languages

This page lists the languages that the project knows and what each engine has for them. A new language is one entry of
`sdrrl_nemo/data/text/languages.py` ([tour](tour.md)); a wording of Table 1 in the language itself is one of
`data/text/wordings.py`. Codes are ISO 639-3 everywhere inside; other schemes stay in that table. Written by
`python tools/docs/languages.py`.

## Names elsewhere

"""
COLUMNS = ("code", "name", "own name", "scripts", "words", "FLORES, NLLB", "CLD3", "fastText", "MUSE", "OPUS-100")
SERVED = """
## What comes in packages, for English as source

`make data-demo LANGS=por,ces,...` uses these: a translator gives all six subsets, a dictionary code-switched English
(LL), a corpus mt and comp. Everything else needs a model or a corpus from elsewhere: NLLB-200 serves all of them, MUSE
all but Khmer, OPUS-100 all.

"""
JUDGED = 300
JUDGEMENT = f"""
## The two translators

Bergamot is a neural model, Apertium a system of dictionaries and rules. sacreBLEU's BLEU and chrF++ against the
translators of GNOME's manuals, on the first {JUDGED} pairs of each language:

"""
FIGURES = ("code", "translator", "BLEU", "chrF++", "an example")
ENGINES = ("code", "translator", "dictionary (FreeDict), entries", "corpus (GNOME's manuals), pairs")


def row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def head(columns: Sequence[str]) -> list[str]:
    """The two lines above a table's rows."""
    return [row(columns), "|" + "---|" * len(columns)]


def names(x: Language) -> str:
    """One row of the first table."""
    cells = (x.code, x.name, x.own_name, ", ".join(x.scripts), "between spaces" if x.spaces else "cut by ICU")
    return row([*cells, *(e or "-" for e in (x.flores, x.cld3, x.fasttext, x.muse, x.opus100))])


def entries(code: str) -> str:
    """Words of the English-X dictionary with a usable translation."""
    try:
        return f"{len(FreeDict().entries('eng', code)):,}"
    except SdrrlError:
        return "-"


def pairs(code: str) -> str:
    """Sentence pairs of the manuals."""
    try:
        return f"{sum(1 for _ in GnomeHelp().pairs('eng', code)):,}"
    except SdrrlError:
        return "-"


def translator(code: str) -> str:
    """The first engine whose model or rules come in a package."""
    for name, engine in (("Bergamot", BergamotTranslator()), ("Apertium", ApertiumTranslator())):
        with contextlib.suppress(SdrrlError):
            engine.check("eng", code)
            return name
    return "-"


def translations(code: str, engine: Translator) -> str:
    """One row of the last table: translations of the manuals' first sentences, held against the manuals' own."""
    known = list(itertools.islice(GnomeHelp().pairs("eng", code), JUDGED))
    made = SegmentedTranslator(engine).translate([pair.source for pair in known], "eng", code)
    score = corpus_score(made, [pair.target for pair in known], tokeniser(code))
    return row([code, translator(code), f"{score.bleu:.1f}", f"{score.chrf:.1f}", f"{known[1].source} — {made[1]}"])


def main(argv: Sequence[str]) -> int:
    """All three tables."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args(argv)
    print(HEAD + "\n".join([*head(COLUMNS), *map(names, LANGUAGES.values())]))
    print(SERVED + "\n".join(head(ENGINES)))
    for code in LANGUAGES:
        if code != "eng":
            print(row([code, translator(code), entries(code), pairs(code)]))
    print(JUDGEMENT + "\n".join(head(FIGURES)))
    for code, engine in (("por", BergamotTranslator()), ("spa", ApertiumTranslator())):
        print(translations(code, engine))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
