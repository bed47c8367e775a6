"""Files of the benchmarks beside the paper's, read and checked, in the folders that their authors publish.

    include-base-44/<Portuguese>/test.*              question, option_a..option_d, answer (0..3)
    Global-MMLU[-Lite]/<pt>/test.*                   sample_id, question, option_a..option_d, answer ("A".."D"),
                                                     cultural_sensitivity_label (CS, CA or none)
    language-confusion/test_sets/<setting>/<source>/<pt>.csv    prompt, ...; beside test_sets the list ``words``
    multiloko/<portuguese>/dev.jsonl                 id, question, targets, output_type
    mgsm/mgsm_<pt>.tsv                               question, tab, number; no header
    m-ArenaHard/<pt>/test.*                          question_id, prompt

``*`` is jsonl, json or parquet (also ``test-00000-of-00001.parquet``); every file may be gzipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.readers.official_files import NotCovered, checked_items, text_field
from sdrrl_nemo.eval.readers.row_files import candidates, find_file, read_lines, read_rows
from sdrrl_nemo.eval.scorers import language_confusion, mgsm, multiloko

INCLUDE = frozenset({"bul", "fin", "fra", "hun", "ind", "jpn", "kor", "pol", "por", "spa", "ukr", "vie"})
GLOBAL_MMLU = frozenset({"ces", "eng", "fra", "ind", "jpn", "kor", "pol", "por", "spa", "ukr", "vie"})
GLOBAL_MMLU_LITE = frozenset({"eng", "fra", "ind", "jpn", "kor", "por", "spa"})
ARENA_HARD = frozenset({"ces", "eng", "fra", "ind", "jpn", "kor", "pol", "por", "spa", "ukr", "vie"})
"""Languages of the table that each data set has."""
FETCHED = {
    "include": "huggingface.co/datasets/CohereLabs/include-base-44",
    "global_mmlu": "huggingface.co/datasets/CohereLabs/Global-MMLU",
    "global_mmlu_lite": "huggingface.co/datasets/CohereLabs/Global-MMLU-Lite",
    "mgsm": "huggingface.co/datasets/juletxara/mgsm",
    "m_arenahard": "huggingface.co/datasets/CohereLabs/m-ArenaHard",
}
"""Those that a hub has, and where they are published. The others are archives, MultiLoKo's with a password."""
OPTIONS = ("option_a", "option_b", "option_c", "option_d")
SETTINGS = ("monolingual", "crosslingual")


@dataclass(frozen=True)
class FourOptions:
    """A question with four answers; ``correct`` counts from 0. ``culture``: CS (needs knowledge of a culture), CA (does
    not) or empty."""

    id: str
    question: str
    choices: tuple[str, str, str, str]
    correct: int
    culture: str = ""


@dataclass(frozen=True)
class ShortAnswer:
    """``targets``: accepted answers; ``kind``: what the answer is, in the question's language (a year, a name)."""

    id: str
    question: str
    targets: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Prompt:
    """What the model is asked."""

    id: str
    prompt: str


def covered(name: str, lang: str, languages: frozenset[str]) -> None:
    """NotCovered where the data set has no such language."""
    if lang not in languages:
        raise NotCovered(f"{name} has no {language(lang).name}")


def place_of(name: str, lang: str) -> Path:
    """Place below ``data_dir`` of a data set of `FETCHED`; NotCovered where it has no such language."""
    entry = language(lang)
    if name == "include":
        covered("INCLUDE-44", lang, INCLUDE)
        return Path("include-base-44", entry.name, "test.jsonl")
    if name == "global_mmlu":
        covered("Global-MMLU", lang, GLOBAL_MMLU)
        return Path("Global-MMLU", entry.fasttext, "test.jsonl")
    if name == "global_mmlu_lite":
        covered("Global-MMLU-Lite", lang, GLOBAL_MMLU_LITE)
        return Path("Global-MMLU-Lite", entry.fasttext, "test.jsonl")
    if name == "m_arenahard":
        covered("m-ArenaHard", lang, ARENA_HARD)
        return Path("m-ArenaHard", entry.fasttext, "test.jsonl")
    return Path("mgsm", f"mgsm_{entry.fasttext}.tsv")


def read_include(data_dir: str | Path, lang: str) -> list[FourOptions]:
    """INCLUDE-44's questions in file order."""
    return _four_options(data_dir, "include", lang)


def read_global_mmlu(data_dir: str | Path, lang: str, lite: bool = False) -> list[FourOptions]:
    """Global-MMLU's questions in file order; ``lite``: the translated part that people checked."""
    return _four_options(data_dir, "global_mmlu_lite" if lite else "global_mmlu", lang)


def _four_options(data_dir: str | Path, name: str, lang: str) -> list[FourOptions]:
    place = place_of(name, lang)
    path = find_file(data_dir / place, place.parts[0], FETCHED[name])
    found = []
    for n, row in read_rows(path):
        a, b, c, d = (_option(path, n, row, key) for key in OPTIONS)
        label = str(row.get("cultural_sensitivity_label") or "").strip()
        number = str(row.get("sample_id") or n)
        found.append(
            FourOptions(
                number,
                text_field(path, n, row, "question"),
                (a, b, c, d),
                _correct(path, n, row.get("answer")),
                label if label in ("CS", "CA") else "",
            )
        )
    checked: list[FourOptions] = checked_items(path, found)
    return checked


def _option(path: Path, n: int, row: dict[str, Any], key: str) -> str:
    """An answer's text; a number, which some files hold as such, is written out."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text_field(path, n, row, key)


def _correct(path: Path, n: int, answer: Any) -> int:
    said = str(answer).strip()
    if isinstance(answer, bool) or said not in {*"0123", *"ABCD"}:
        raise SdrrlError(f"{path}, line {n}: field 'answer' is '{said}'; it must be 0 to 3 or A to D")
    return int(said) if said.isdigit() else "ABCD".index(said)


def read_language_confusion(data_dir: str | Path, lang: str) -> dict[tuple[str, str], list[Prompt]]:
    """(setting, source) -> prompts of each file that the benchmark has for the language."""
    covered("the Language Confusion Benchmark", lang, language_confusion.LANGUAGES)
    root = Path(data_dir, "language-confusion", "test_sets")
    found = {}
    for setting in SETTINGS:
        for folder in sorted(p for p in (root / setting).glob("*") if p.is_dir()):
            place = folder / f"{language(lang).fasttext}.csv"
            path = next((c for c in candidates(place) if c.is_file()), None)
            if path:
                rows = [Prompt(str(n), text_field(path, n, row, "prompt")) for n, row in read_rows(path)]
                found[setting, folder.name] = checked_items(path, rows)
    if not found:
        raise SdrrlError(
            f"{root}: no prompts in {language(lang).name}; unpack test_sets.zip of "
            "github.com/for-ai/language-confusion there, or set data_dir"
        )
    return found


def read_english_words(data_dir: str | Path, path: str = "") -> frozenset[str]:
    """The benchmark's list of English words, from ``path`` or from beside its test sets."""
    place = Path(path) if path else Path(data_dir, "language-confusion", "words")
    found = find_file(place, "the list of English words", "github.com/for-ai/language-confusion (words)")
    words = language_confusion.english_words(read_lines(found))
    if not words:
        raise SdrrlError(f"{found}: no English word of four letters or more; fetch the file again")
    return words


def read_multiloko(data_dir: str | Path, lang: str) -> list[ShortAnswer]:
    """MultiLoKo's development questions of the language's own locale, in file order; those for the test are secret."""
    covered("MultiLoKo", lang, frozenset(multiloko.NAMES))
    source = "github.com/facebookresearch/multiloko (benchmark_data.tar.xz.enc, unpacked)"
    path = find_file(Path(data_dir, "multiloko", multiloko.NAMES[lang], "dev.jsonl"), "MultiLoKo", source)
    found = []
    for n, row in read_rows(path):
        targets = row.get("targets")
        if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
            raise SdrrlError(f"{path}, line {n}: field 'targets' must be a list of accepted answers")
        question, number = text_field(path, n, row, "question"), text_field(path, n, row, "id")
        found.append(ShortAnswer(number, question, tuple(targets), str(row.get("output_type") or "")))
    checked: list[ShortAnswer] = checked_items(path, found)
    return checked


def read_mgsm(data_dir: str | Path, lang: str) -> list[ShortAnswer]:
    """MGSM's problems in file order. A file of another language in MGSM's form is read where it is there."""
    place = data_dir / place_of("mgsm", lang)
    if not any(c.is_file() for c in candidates(place)):
        covered("MGSM", lang, mgsm.OFFICIAL)
    path = find_file(place, "MGSM", FETCHED["mgsm"])
    found = []
    for n, line in enumerate(read_lines(path), 1):
        question, tab, answer = line.strip().partition("\t")
        if not tab or not answer.replace(",", "").lstrip("-").isdigit():
            raise SdrrlError(f"{path}, line {n}: a problem, a tab and a whole number are needed")
        found.append(ShortAnswer(str(n), question, (answer,)))
    checked: list[ShortAnswer] = checked_items(path, found)
    return checked


def read_arena_hard(data_dir: str | Path, lang: str) -> list[Prompt]:
    """m-ArenaHard's prompts in file order."""
    path = find_file(data_dir / place_of("m_arenahard", lang), "m-ArenaHard", FETCHED["m_arenahard"])
    rows = [
        Prompt(text_field(path, n, row, "question_id"), text_field(path, n, row, "prompt"))
        for n, row in read_rows(path)
    ]
    checked: list[Prompt] = checked_items(path, rows)
    return checked


def read_baseline(path: str | Path, task: str) -> dict[str, str]:
    """Question's id -> the baseline's answer, from ``results.json`` of an evaluation or rows of question_id, answer."""
    place = Path(path)
    if place.name == "results.json":
        return _answers_of(place, task)
    found = find_file(place, "the baseline's answers", "the baseline's evaluation (results.json)")
    return {text_field(found, n, r, "question_id"): str(r.get("answer") or "") for n, r in read_rows(found)}


def _answers_of(place: Path, task: str) -> dict[str, str]:
    tasks = read_json_object(place).get("tasks")
    if not isinstance(tasks, dict) or task not in tasks:
        raise SdrrlError(f"{place}: no task '{task}'; evaluate the baseline on m-ArenaHard in this language first")
    return {str(item["id"]): str(item["prediction"]) for item in tasks[task]["items"]}
