"""Tasks of this project for lm-evaluation-harness: local files in, this project's scorers out.

    lm_eval --include_path configs/eval/lm_eval --tasks sdrrl_por --model hf --model_args pretrained=<folder> \
        --apply_chat_template --metadata '{"data_dir": "data/benchmarks"}'

``dataset_kwargs`` of a task name its language, ``--metadata`` may set ``data_dir`` and ``bleu_tokenize``, for the
Language Confusion Benchmark ``identifier`` (a registered name) and ``identifier_options``, and for m-ArenaHard
``arena_hard``, the section of that name of this project's own evaluation (docs/evaluation.md): judge and baseline.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT) not in sys.path:  # lm_eval imports this file by its path, from any folder
    sys.path.insert(0, str(ROOT))

from datasets import Dataset  # noqa: E402

import sdrrl_nemo.data.engines  # noqa: E402
from sdrrl_nemo.common.errors import SdrrlError, suggest  # noqa: E402
from sdrrl_nemo.data.config import EngineConfig  # noqa: E402
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS  # noqa: E402
from sdrrl_nemo.data.text.languages import language  # noqa: E402
from sdrrl_nemo.eval.config import ArenaHardConfig, OffTargetConfig, PromptConfig  # noqa: E402
from sdrrl_nemo.eval.readers import further_files  # noqa: E402
from sdrrl_nemo.eval.readers import official_files as readers  # noqa: E402
from sdrrl_nemo.eval.scorers import arena_hard, bleu, mgsm, mkqa, multiloko, rouge  # noqa: E402
from sdrrl_nemo.eval.scorers import language_confusion as confusion  # noqa: E402
from sdrrl_nemo.eval.scorers.off_target import off_target  # noqa: E402
from sdrrl_nemo.eval.suites.belebele import prompt as belebele_prompt  # noqa: E402
from sdrrl_nemo.eval.suites.common import identifier as named_identifier  # noqa: E402
from sdrrl_nemo.eval.suites.further.arena_hard import Judge  # noqa: E402
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
def flores(
    data_dir: str, source: str, target: str, bleu_tokenize: str = bleu.AUTO, benchmark: str = "flores", **_: Any
) -> list[Doc]:
    """One row a sentence. ``benchmark``: ``flores`` (FLORES-200) or ``flores_plus``."""
    read = readers.READERS[benchmark]
    names = {"source": language(source).name, "target": language(target).name}
    tokenize = bleu.tokeniser(target, bleu_tokenize)
    pairs = zip(read(data_dir, source), read(data_dir, target), strict=True)
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


@_test
def language_confusion(
    data_dir: str,
    lang: str,
    setting: str,
    identifier: str = "fasttext_lid",
    identifier_options: dict[str, Any] | None = None,
    **_: Any,
) -> list[Doc]:
    """Prompts of every source of a setting, ``monolingual`` or ``crosslingual``; identified as the authors do."""
    judge = json.dumps({"name": identifier, "options": identifier_options or {}})
    return [
        {
            "id": x.id,
            "prompt": x.prompt,
            "reference": "",
            "lang": lang,
            "source": source,
            "identifier": judge,
            "data_dir": data_dir,
        }
        for (kind, source), rows in further_files.read_language_confusion(data_dir, lang).items()
        if kind == setting
        for x in rows
    ]


@_test
def arena_questions(data_dir: str, lang: str, arena_hard: dict[str, Any] | None = None, **_: Any) -> list[Doc]:
    """m-ArenaHard's questions, each with the baseline's answer where ``arena_hard`` names a judge."""
    own, known = arena_hard or {}, [f.name for f in fields(ArenaHardConfig)]
    for key in own:
        if key not in known:
            raise SdrrlError(f"--metadata, arena_hard: '{key}' is unknown{suggest(key, known)}")
    if own.get("model") and not own.get("baseline"):
        raise SdrrlError("--metadata, arena_hard: model needs baseline, the file with the baseline's answers")
    judge = json.dumps(own) if own.get("model") else ""
    place = str(own.get("baseline", "")).format(language=lang)
    theirs = further_files.read_baseline(place, f"m_arenahard.{lang}") if judge else {}
    return [
        {"id": x.id, "prompt": x.prompt, "reference": "", "baseline": theirs[x.id] if judge else "", "judge": judge}
        for x in further_files.read_arena_hard(data_dir, lang)
    ]


@functools.cache
def _words(data_dir: str) -> frozenset[str]:
    return further_files.read_english_words(data_dir)


def score_language_confusion(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """(source, language, the answer's judgement) for the rates, which are means over sources."""
    judged_by = named_identifier(EngineConfig(**json.loads(doc["identifier"])))
    [found] = confusion.score_items([results[0].strip()], doc["lang"], judged_by, _words(doc["data_dir"]))
    row = (doc["source"], doc["lang"], found)
    return {"lpr": row, "line_accuracy": row, "wpr": row}


Judged = tuple[str, str, confusion.Confusion]


def _over_sources(rows: Sequence[Judged], rate: str) -> float:
    """A rate in percent, averaged over sources as the official script does; NaN where nothing is judged."""
    sources: dict[str, list[confusion.Confusion]] = {}
    for source, _, found in rows:
        sources.setdefault(source, []).append(found)
    rates = [confusion.corpus_score(items, rows[0][1]) for items in sources.values()]
    mean = confusion.average([getattr(r, rate) for r in rates if r.judged])
    return math.nan if mean is None else 100.0 * mean


def line_pass_rate(rows: Sequence[Judged]) -> float:
    """Share of the answers all of whose lines are in the language."""
    return _over_sources(rows, "lpr")


def line_accuracy(rows: Sequence[Judged]) -> float:
    """Mean share of lines in the language."""
    return _over_sources(rows, "accuracy")


def word_pass_rate(rows: Sequence[Judged]) -> float:
    """Of the passing answers, those without an English word; Japanese and Korean only, else NaN."""
    return _over_sources(rows, "wpr")


def score_arena(doc: Doc, results: Sequence[str]) -> dict[str, tuple[str, str, str, str]]:
    """What the judge is shown; all answers are judged together, in the aggregation."""
    row = (doc["prompt"], doc["baseline"], results[0].strip(), doc["judge"])
    return {"win_rate": row, "arena_hard": row}


Shown = tuple[str, str, str, str]


@functools.lru_cache(maxsize=1)
def _battles(rows: tuple[Shown, ...]) -> list[arena_hard.Battle]:
    """Both metrics come of one round of calls; each pair is shown twice with the answers' places swapped."""
    judge = Judge(ArenaHardConfig(**json.loads(rows[0][3])))
    verdicts = judge.compare([(question, theirs, own) for question, theirs, own, _ in rows])
    return [b for b in (arena_hard.score_item(*v) for v in verdicts) if b is not None]


def _percent(rows: Sequence[Shown], rate: Callable[[list[arena_hard.Battle]], float | None]) -> float:
    found = rate(_battles(tuple(map(tuple, rows)))) if rows[0][3] else None  # type: ignore[arg-type]
    return math.nan if found is None else 100.0 * found


def arena_win_rate(rows: Sequence[Shown]) -> float:
    """Win rate against the baseline, a tie half; NaN without a judge: the answers are in the harness's samples."""
    return _percent(rows, arena_hard.win_rate)


def arena_official(rows: Sequence[Shown]) -> float:
    """Arena-Hard's own score; NaN without a judge."""
    return _percent(rows, arena_hard.official_score)


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
