"""Score the answers that the Language Confusion Benchmark publishes of ten models by its own script and by our scorer.

    python tests/data/scorers/compare_confusion_outputs.py --language-confusion LC --lid lid.176.ftz

LC: a checkout of for-ai/language-confusion (docs/scorers.md has the commit); ``lid``: fastText's model, for both sides.
Needs the extras eval and lid. Prints one line a model and exits 1 where a figure of any source differs.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy

from sdrrl_nemo.data.engines.base import LanguageIdentifier
from sdrrl_nemo.data.engines.language_id.fasttext import FastTextIdentifier
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.scorers.language_confusion import LANGUAGES, corpus_score, english_words, score_items


class _Arrays:
    """fasttext-predict gives tuples where fasttext gives arrays, which the script compares with a number."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, line: str) -> tuple[Any, Any]:
        labels, probabilities = self._model.predict(line)
        return labels, numpy.asarray(probabilities)


def official(checkout: Path, lid: Path, folder: Path) -> Callable[[list[str], str], dict[str, float]]:
    """``compute_metrics`` of the script, which opens its files in the current folder when it is imported."""
    shutil.copy(checkout / "compute_metrics.py", folder)
    script = folder / "compute_metrics.py"
    source = script.read_text(encoding="utf-8")
    source = source.replace("'words'", repr(str(checkout / "words"))).replace("'lid.176.bin'", repr(str(lid)))
    space: dict[str, Any] = {"__name__": "compute_metrics"}
    exec(compile(source, str(script), "exec"), space)
    space["lid_model"] = _Arrays(space["lid_model"])
    compute: Callable[[list[str], str], dict[str, float]] = space["compute_metrics"]
    return compute


def same(
    theirs: dict[str, float], answers: list[str], code: str, lid: LanguageIdentifier, words: Collection[str]
) -> bool:
    """Whether ours of one source and language are theirs."""
    ours = corpus_score(score_items(answers, code, lid, words), code)
    pairs = [(theirs["lpr"], ours.lpr), (theirs["acc"], ours.accuracy)]
    if ours.wpr is not None:
        pairs.append((theirs["wpr"], ours.wpr))
    return ("wpr" in theirs) == (ours.wpr is not None) and all(math.isclose(a, b, abs_tol=1e-12) for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language-confusion", type=Path, required=True)
    parser.add_argument("--lid", type=Path, required=True)
    a = parser.parse_args()
    words = english_words((a.language_confusion / "words").read_text(encoding="utf-8").splitlines())
    ours, codes = FastTextIdentifier(str(a.lid)), {language(x).fasttext: x for x in LANGUAGES}
    csv.field_size_limit(sys.maxsize)
    different = answers = 0
    with tempfile.TemporaryDirectory() as folder:
        compute = official(a.language_confusion.resolve(), a.lid.resolve(), Path(folder))
        for path in sorted((a.language_confusion / "outputs").glob("*.csv")):
            groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
            with open(path, encoding="utf-8") as f:
                for row in csv.DictReader(f):
                    if row["language"] in codes:
                        groups[row["task"], row["source"], row["language"]].append(row["completion"])
            failed = [k for k, g in groups.items() if not same(compute(g, k[2]), g, codes[k[2]], ours, words)]
            answers, different = answers + sum(map(len, groups.values())), different + len(failed)
            print(f"{path.stem}: {sum(map(len, groups.values()))} answers, {len(groups)} sources, different: {failed}")
    print(f"{answers} answers, {different} sources differ")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
