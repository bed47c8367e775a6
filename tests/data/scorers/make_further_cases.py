"""Write multiloko.json, mgsm.json, language_confusion.json, arena_hard.json: inputs and what the official code gave.

    python tests/data/scorers/make_further_cases.py --language-confusion LC --multiloko ML --simple-evals SE \
        --arena-hard AH --lid lid.176.ftz

Each option names a checkout (docs/scorers.md has the commits); SE needs ``mgsm_eval.py`` only, ``lid`` is fastText's
compressed model. The texts are those of rouge.json, spoilt sentences of the Universal Declaration of Human Rights.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
import string
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Union

HERE = Path(__file__).resolve().parent
BASE = json.loads((HERE / "rouge.json").read_text(encoding="utf-8"))["cases"]
WORDS = "freedom\nrights\neveryone\nhuman\nwithout\ncountry\nperson\nthe\nand\nEnglish\nbrotherhood\nspirit\n"
"""A list in the place of the official one, in the same form."""
CONFUSION = {"eng": "en", "fra": "fr", "por": "pt", "jpn": "ja", "kor": "ko", "ind": "id", "vie": "vi"}
FOREIGN = "Everyone has the right to freedom of movement and residence.\n"


def functions(path: Path, *names: str, **given: Any) -> dict[str, Any]:
    """The named functions of a file, without running or importing the rest of it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict[str, Any] = dict(given)
    exec(compile(tree, str(path), "exec"), space)
    return space


def multiloko(checkout: Path) -> list[dict[str, Any]]:
    import sacrebleu

    names = (
        "remove_articles",
        "white_space_fix",
        "remove_punc",
        "normalize_answer",
        "f1",
        "exact_match",
        "sentence_chrf",
    )
    types = {"List": list, "Union": Union, "Any": Any}
    code = functions(checkout / "eval.py", *names, re=re, string=string, Counter=Counter, sacrebleu=sacrebleu, **types)
    out = []
    for n, case in enumerate(BASE):
        other = BASE[(n + 1) % len(BASE)]["reference"]
        prediction = case["prediction"] if n % 3 else f"«The {case['reference']}» — 、a!"
        targets = [case["reference"], other][: 1 + n % 2]
        said, accepted = code["normalize_answer"](prediction), [code["normalize_answer"](t) for t in targets]
        scores = {"em": "exact_match", "f1": "f1", "chrf": "sentence_chrf"}
        found = {k: code[f](said, accepted) for k, f in scores.items()}
        out.append({"lang": case["lang"], "prediction": prediction, "targets": targets, **found})
    return out


def mgsm(checkout: Path) -> list[dict[str, Any]]:
    code = functions(checkout / "mgsm_eval.py", "parse_answer", "score_mgsm", re=re)
    tree = ast.parse((checkout / "mgsm_eval.py").read_text(encoding="utf-8"))
    prefixes = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LANG_TO_ANSWER_PREFIX"
    )
    endings = ("{h}: 18", "{h}: 1,234.", "{h}: 18.0", "{h} 3 + 15 = 18", "18", "{h}: -18", "{h}: x {h}: $18.50", "{h}:")
    targets = ("18", "1234", "1,234", "3", "18.5", "0")
    out = []
    for lang, short in (("eng", "en"), ("fra", "fr"), ("jpn", "ja"), ("tha", "th")):
        reasons = [c["reference"] for c in BASE if c["lang"] == lang]
        for n in range(60):
            text = f"{reasons[n % len(reasons)]} 7\n{endings[n % 8].format(h=prefixes[short])}"
            number = code["parse_answer"](text, prefixes[short])
            target = targets[n % len(targets)]
            score = float(code["score_mgsm"](target, number))
            out.append({"lang": lang, "text": text, "target": target, "number": number, "score": score})
    return out


def language_confusion(checkout: Path, lid: Path) -> list[dict[str, Any]]:
    """The official script runs in a process of its own, where it finds the identifier and the words."""
    asked = []
    for lang in CONFUSION:
        texts = [c["prediction"] if n % 2 else c["reference"] for n, c in enumerate(BASE) if c["lang"] == lang]
        for n in range(34):
            one, two = texts[n % len(texts)], texts[(n * 5 + 1) % len(texts)]
            kinds = (
                one,
                f"{one}\n{two}",
                f"{one}\n{FOREIGN}{two}",
                f"{one} freedom human",
                FOREIGN,
                f"{one}\nQ: {FOREIGN}",
            )
            asked.append({"lang": lang, "text": [*kinds, "Ok.", ""][n % 8]})
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(checkout / "compute_metrics.py", folder)
        shutil.copy(lid, Path(folder) / "lid.176.bin")
        (Path(folder) / "words").write_text(WORDS)
        (Path(folder) / "asked.json").write_text(json.dumps([[CONFUSION[a["lang"]], a["text"]] for a in asked]))
        # fasttext-predict gives tuples where fasttext gives arrays, which the script compares with a number
        run = (
            "import json, numpy, compute_metrics as c\nmodel = c.lid_model\n"
            "class Model:\n"
            "    def predict(self, line):\n"
            "        labels, p = model.predict(line)\n        return labels, numpy.asarray(p)\n"
            "c.lid_model = Model()\n"
            "print(json.dumps([c.compute_metrics([t], l) for l, t in json.load(open('asked.json'))]))\n"
        )
        done = subprocess.run([sys.executable, "-c", run], cwd=folder, capture_output=True, text=True, check=True)
    return [{**a, **found} for a, found in zip(asked, json.loads(done.stdout), strict=True)]


def arena_hard(checkout: Path) -> list[dict[str, Any]]:
    code = functions(checkout / "gen_judgment.py", "get_score")
    source = (checkout / "show_result.py").read_text(encoding="utf-8")
    weight = 3
    labels = eval(re.search(r"label_to_score = (\{.*?\n    \})", source, re.DOTALL)[1], {"weight": weight})  # type: ignore[index]
    patterns = [r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"]
    forms = ("My final verdict is: [[{v}]]", "[{v}]", "First [[A=B]], but no: [[{v}]].", "[[{v}]] [A>B]", "{v}")
    out = []
    for n in range(240):
        verdicts = [list(labels)[n % 10], list(labels)[(n * 7 + n // 10) % 10]]
        replies = [forms[(n + k * 2) % 5].format(v=v) for k, v in enumerate(verdicts)]
        read = [code["get_score"](r, patterns) for r in replies]
        scores = None if None in read else labels[read[1]] + [1 - s for s in labels[read[0]]]
        out.append({"replies": replies, "verdicts": read, "scores": scores})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("language-confusion", "multiloko", "simple-evals", "arena-hard", "lid"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    a = parser.parse_args()
    made = {
        "multiloko": ("facebookresearch/multiloko", "4de606f3b597c399b3b0c9f06fc06f178ad14d", multiloko(a.multiloko)),
        "mgsm": ("openai/simple-evals", "ee3b0318d8d1d9d72755a4120879be65f7c07e9e", mgsm(a.simple_evals)),
        "language_confusion": (
            "for-ai/language-confusion", "0cfdbb4a64502648938c456b2fa9689968f22298",
            language_confusion(a.language_confusion, a.lid),
        ),
        "arena_hard": ("lmarena/arena-hard-auto", "196f6b826783b3da7310e361a805fa36f0be83f3", arena_hard(a.arena_hard)),
    }  # fmt: skip
    for name, (repository, commit, cases) in made.items():
        head = {"repository": repository, "commit": commit, "command": "tests/data/scorers/make_further_cases.py"}
        lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
        text = json.dumps(head, ensure_ascii=False)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
        (HERE / f"{name}.json").write_text(text, encoding="utf-8")
        print(name, len(cases))


if __name__ == "__main__":
    main()
