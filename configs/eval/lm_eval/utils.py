"""Tasks of this project for lm-evaluation-harness: local files in, this project's scorers out.

    lm_eval --include_path configs/eval/lm_eval --tasks sdrrl_por --model hf --model_args pretrained=<folder> \
        --apply_chat_template --metadata '{"data_dir": "data/benchmarks"}'

``dataset_kwargs`` of a task name its language, ``--metadata`` may set ``data_dir`` and ``bleu_tokenize``.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT) not in sys.path:  # lm_eval imports this file by its path, from any folder
    sys.path.insert(0, str(ROOT))

from datasets import Dataset  # noqa: E402

import sdrrl_nemo.data.engines  # noqa: E402
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS  # noqa: E402
from sdrrl_nemo.data.text.languages import language  # noqa: E402
from sdrrl_nemo.eval.config import OffTargetConfig, PromptConfig  # noqa: E402
from sdrrl_nemo.eval.readers import further_files  # noqa: E402
from sdrrl_nemo.eval.readers import official_files as readers  # noqa: E402
from sdrrl_nemo.eval.scorers import bleu, mgsm, mkqa, multiloko, rouge  # noqa: E402
from sdrrl_nemo.eval.scorers.off_target import off_target  # noqa: E402
from sdrrl_nemo.eval.suites.belebele import prompt as belebele_prompt  # noqa: E402
from sdrrl_nemo.eval.suites.further.four_options import prompt as four_options_prompt  # noqa: E402
from sdrrl_nemo.eval.suites.mkqa import binary_answer  # noqa: E402

Doc = dict[str, Any]
PROMPTS = PromptConfig()


def _test(make: Callable[..., list[Doc]]) -> Callable[..., dict[str, Dataset]]:
    """Rows as the harness wants them; keys of ``metadata`` that a task has no use for are let through."""

    @functools.wraps(make)
    def dataset(data_dir: str = str(ROOT / "data" / "benchmarks"), **options: Any) -> dict[str, Dataset]:
        return {"test": Dataset.from_list(make(data_dir, **options))}

    return dataset


@_test
def belebele(data_dir: str, lang: str, style: str = "paper", **_: Any) -> list[Doc]:
    """``style``: ``paper`` or ``lm_eval`` (the harness's own wording)."""
    items = readers.read_belebele(data_dir, lang)
    return [{"id": x.id, "prompt": belebele_prompt(x, style), "correct": x.correct} for x in items]


@_test
def flores(data_dir: str, source: str, target: str, bleu_tokenize: str = bleu.AUTO, **_: Any) -> list[Doc]:
    """One row a sentence."""
    names = {"source": language(source).name, "target": language(target).name}
    tokenize = bleu.tokeniser(target, bleu_tokenize)
    pairs = zip(readers.read_flores(data_dir, source), readers.read_flores(data_dir, target), strict=True)
    return [
        {"prompt": PROMPTS.flores.format(sentence=s, **names), "reference": t, "tokenize": tokenize} for s, t in pairs
    ]


@_test
def xlsum(data_dir: str, lang: str, **_: Any) -> list[Doc]:
    """One row an article; the harness cuts what is too long for the model on the left."""
    name = language(lang).name
    return [
        {"id": x.id, "prompt": PROMPTS.xlsum.format(language=name, text=x.text), "reference": x.summary, "lang": lang}
        for x in readers.read_xlsum(data_dir, lang)
    ]


@_test
def mkqa_questions(data_dir: str, lang: str, **_: Any) -> list[Doc]:
    """Questions with a gold answer."""
    name = language(lang).name
    return [
        {
            "id": x.id,
            "prompt": PROMPTS.mkqa.format(language=name, question=x.question),
            "reference": x.answers[0],
            "answers": list(x.answers),
            "binary": "binary" in x.types,
            "lang": lang,
        }
        for x in readers.read_mkqa(data_dir, lang)[0]
    ]


@_test
def instructions(data_dir: str, lang: str, id_prefix: str = "", **_: Any) -> list[Doc]:
    """Bactrian-X."""
    items = readers.read_instructions(data_dir, lang, id_prefix)
    return [{"id": x.id, "prompt": x.prompt, "reference": "", "lang": lang} for x in items]


@_test
def four_options(data_dir: str, benchmark: str, lang: str, **_: Any) -> list[Doc]:
    """``benchmark``: ``include``, ``global_mmlu`` or ``global_mmlu_lite``."""
    if benchmark == "include":
        items = further_files.read_include(data_dir, lang)
    else:
        items = further_files.read_global_mmlu(data_dir, lang, lite=benchmark == "global_mmlu_lite")
    return [{"id": x.id, "prompt": four_options_prompt(x), "correct": x.correct} for x in items]


@_test
def multiloko_questions(data_dir: str, lang: str, **_: Any) -> list[Doc]:
    """MultiLoKo's development questions."""
    items = further_files.read_multiloko(data_dir, lang)
    names = {"language": language(lang).name}
    prompts = [PROMPTS.multiloko.format(question=x.question, kind=x.kind or "a few words", **names) for x in items]
    return [
        {"id": x.id, "prompt": p, "reference": x.targets[0], "targets": list(x.targets)}
        for x, p in zip(items, prompts, strict=True)
    ]


@_test
def mgsm_problems(data_dir: str, lang: str, **_: Any) -> list[Doc]:
    """MGSM, or a file of another language in its form."""
    names = {"language": language(lang).name, "heading": mgsm.HEADINGS[lang]}
    return [
        {"prompt": PROMPTS.mgsm.format(question=x.question, **names), "reference": x.targets[0], "lang": lang}
        for x in further_files.read_mgsm(data_dir, lang)
    ]


def score_multiloko(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 in percent, chrF from 0 to 100."""
    found = multiloko.score_item(results[0], doc["targets"])
    return {"em": 100.0 * found.em, "f1": 100.0 * found.f1, "chrf": found.chrf}


def score_mgsm(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Accuracy in percent."""
    return {"accuracy": 100.0 * mgsm.score_item(results[0], doc["reference"], doc["lang"])}


def score_mkqa(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """F1 and exact match in percent."""
    text = results[0].strip()
    said = binary_answer(text, doc["lang"]) if doc["binary"] else None
    found = mkqa.score_item(said or text, doc["answers"], doc["lang"])
    return {"f1": 100.0 * found.f1, "em": 100.0 * found.exact_match}


def score_xlsum(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """ROUGE F1 in percent."""
    found = rouge.score_item(results[0].strip(), doc["reference"], doc["lang"])
    return {"rouge1": 100.0 * found.rouge1, "rougeL": 100.0 * found.rougeL}


def score_flores(doc: Doc, results: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Texts for the corpus metrics."""
    row = (" ".join(results[0].split()), doc["reference"], doc["tokenize"])
    return {"bleu": row, "chrf": row}


def corpus_bleu(rows: Sequence[tuple[str, str, str]]) -> float:
    """BLEU with the tokeniser of the task."""
    return bleu.corpus_score([r[0] for r in rows], [r[1] for r in rows], rows[0][2]).bleu


def corpus_chrf(rows: Sequence[tuple[str, str, str]]) -> float:
    """chrF++."""
    return bleu.corpus_score([r[0] for r in rows], [r[1] for r in rows], rows[0][2]).chrf


@functools.cache
def _identifier() -> Any:
    assert sdrrl_nemo.data.engines  # registers them
    return LANGUAGE_IDENTIFIERS.create("cld3")


def score_off_target(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """1 where the answer is in another language, NaN where it is too short to judge."""
    [code] = off_target(_identifier(), [results[0].strip()], doc["lang"], OffTargetConfig().min_letters).languages
    return {"off_target": math.nan if code is None else float(code != doc["lang"])}


def rate(values: Sequence[float]) -> float:
    """Percent of the answers long enough to judge."""
    judged = [v for v in values if not math.isnan(v)]
    return 100.0 * sum(judged) / len(judged) if judged else math.nan
