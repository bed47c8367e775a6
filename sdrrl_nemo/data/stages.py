"""Stages between the instruction set and the four subsets: ingest, sample, translate, judge, combine, code-switch."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data import words
from sdrrl_nemo.data.codeswitch import Entries, code_switch, invert, protected_parts
from sdrrl_nemo.data.config import CrossLingualConfig, EngineConfig, InstructionsConfig, Pair, pair_name
from sdrrl_nemo.data.engines.base import Dictionary, LanguageIdentifier, QualityEstimator, Translator
from sdrrl_nemo.data.filters import Filter, TextPair
from sdrrl_nemo.data.instructions import read_instructions, split_held_out
from sdrrl_nemo.data.runner import Outcome, Row, Stage
from sdrrl_nemo.data.templates import answer_language_request

COMPONENTS = ("question", "answer")


class Ingest(Stage):
    """Reads D and marks each row ``train`` or ``held-out``."""

    name = "ingest"

    def __init__(self, config: InstructionsConfig, sha256: str, seed: int) -> None:
        self.config, self.sha256, self.seed = config, sha256, seed

    def settings(self) -> Any:
        return {**asdict(self.config), "path": self.sha256, "seed": self.seed}

    def process(self, rows: list[Row]) -> Outcome:
        found, rejects, notes = read_instructions(self.config)
        train, held = split_held_out(found, self.config.held_out, self.config.limit, self.seed)
        chosen = [{**r, "split": "train"} for r in train] + [{**r, "split": "held-out"} for r in held]
        dropped = Counter(r["reason"] for r in rejects)
        beyond = len(found) - len(chosen)
        if beyond:
            dropped["beyond instructions.limit"] = beyond
        notes |= Counter({"training": len(train), "held out": len(held)})
        return Outcome(chosen, len(found) + len(rejects), len(chosen), rejects, dropped, notes)


def draws_y_hat(seed: int, key: str) -> bool:
    """Eq. 4's coin for one question: True for y_hat, with probability 1/2; known before y_hat is generated."""
    return named_random(seed, "synth", key).random() < 0.5


class Sample(Stage):
    """D_synth (Eq. 4): ``sample`` takes y or y_hat per question, each with probability 1/2; ``both`` takes the union,
    ``answers`` y alone.

    A question whose draw is y_hat, where none was usable, is dropped: taking y instead would tilt the draw.
    """

    name = "sample"

    def __init__(self, mode: str, seed: int, shard_size: int) -> None:
        self.mode, self.seed, self.shard_size = mode, seed, shard_size

    def settings(self) -> Any:
        return {"mode": self.mode, "seed": self.seed}

    def _origins(self, key: str) -> tuple[str, ...]:
        if self.mode == "sample":
            return ("y_hat",) if draws_y_hat(self.seed, key) else ("y",)
        return ("y", "y_hat") if self.mode == "both" else ("y",)

    def process(self, rows: list[Row]) -> Outcome:
        out: list[Row] = []
        rejects: list[Row] = []
        notes: Counter[str] = Counter()
        for row in rows:
            for origin in self._origins(row["key"]):
                answer = row["answer"] if origin == "y" else row["generated"]
                if answer is None:
                    rejects.append({"key": row["key"], "reason": "no usable y_hat", "question": row["question"]})
                    continue
                notes[origin] += 1
                out.append(synth_row(row, origin, answer))
        return Outcome(out, len(out) + len(rejects), len(out), rejects, notes=notes)


def synth_row(row: Row, origin: str, answer: str) -> Row:
    """Row of D_synth; ``origin`` is y (the instruction set's answer) or y_hat (the model's)."""
    key = content_key("synth", row["key"], origin, answer)
    return {"key": key, "source_key": row["key"], "origin": origin, "question": row["question"], "answer": answer}


class Translate(Stage):
    """x, y and y_hat into the target language (section 3.2.2); counts translations, two a row."""

    def __init__(self, name: str, engine: Translator, options: Any, pair: Pair, shard_size: int) -> None:
        self.name, self.engine, self.options = name, engine, options
        (self.source, self.target), self.shard_size = pair, shard_size

    def settings(self) -> Any:
        return {"engine": self.engine.identity, "options": self.options, "pair": [self.source, self.target]}

    def process(self, rows: list[Row]) -> Outcome:
        texts = list(dict.fromkeys(row[c] for row in rows for c in COMPONENTS))
        translated = dict(zip(texts, self.engine.translate(texts, self.source, self.target), strict=True))
        out: list[Row] = []
        rejects: list[Row] = []
        for row in rows:
            new = dict(row)
            for c in COMPONENTS:
                new[f"{c}_target"] = translated[row[c]].strip() or None
                if new[f"{c}_target"] is None:
                    rejects.append({"key": row["key"], "component": c, "reason": "empty", "source": row[c]})
            out.append(new)
        return Outcome(out, 2 * len(rows), 2 * len(rows) - len(rejects), rejects)


Verdict = tuple[str, str] | None
"""(reason, detail) of a rejection."""


class Judge(Stage):
    """Base of the stages that reject translations.

    A rejected translation becomes None and its row stays: a bad answer costs LT and TT, a bad question TL and TT, and
    LL needs no translation at all.
    """

    source: str
    target: str

    @abstractmethod
    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        """Per pair its verdict, and fields to remember in the row under ``<component>_<field>``."""

    def process(self, rows: list[Row]) -> Outcome:
        live = [(i, c) for i, row in enumerate(rows) for c in COMPONENTS if row[f"{c}_target"] is not None]
        pairs = [TextPair(rows[i][c], rows[i][f"{c}_target"], self.source, self.target) for i, c in live]
        out = [dict(row) for row in rows]
        rejects: list[Row] = []
        for (i, c), pair, (verdict, fields) in zip(live, pairs, self.judge(pairs) if pairs else [], strict=True):
            out[i].update({f"{c}_{name}": value for name, value in fields.items()})
            if verdict is None:
                continue
            out[i][f"{c}_target"] = None
            reason, detail = verdict
            about = {"key": rows[i]["key"], "component": c, "source": pair.source, "target": pair.target}
            rejects.append({**about, "reason": reason, "detail": detail})
        return Outcome(out, len(live), len(live) - len(rejects), rejects)


class Quality(Judge):
    """Rejects translations whose estimated quality is below tau (section 3.2.2)."""

    def __init__(self, name: str, engine: QualityEstimator, options: Any, tau: float, shard_size: int) -> None:
        self.name, self.engine, self.options, self.tau, self.shard_size = name, engine, options, tau, shard_size
        self.source = self.target = ""

    def settings(self) -> Any:
        return {"engine": self.engine.identity, "options": self.options, "tau": self.tau}

    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        scores = self.engine.score([p.source for p in pairs], [p.target for p in pairs])
        return [
            (None if score >= self.tau else ("below tau", f"{score:.4f} < {self.tau}"), {"quality": round(score, 4)})
            for score in map(float, scores)
        ]


class Heuristics(Judge):
    """Rejects translations by the configured filters; the first that says no gives the reason."""

    def __init__(
        self,
        name: str,
        chosen: Sequence[EngineConfig],
        filters: Mapping[str, Filter],
        pair: Pair,
        shard_size: int,
    ) -> None:
        self.name, self.chosen, self.filters, self.shard_size = name, chosen, filters, shard_size
        self.source, self.target = pair

    def settings(self) -> Any:
        versions = [f.version for f in self.filters.values()]
        chosen = [asdict(c) for c in self.chosen]
        return {"filters": chosen, "versions": versions, "pair": [self.source, self.target], "words": words.identity()}

    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        return [(self._first(pair), {}) for pair in pairs]

    def _first(self, pair: TextPair) -> Verdict:
        for name, judge in self.filters.items():
            detail = judge.reject(pair)
            if detail:
                return name, detail
        return None


class LanguageId(Judge):
    """Rejects translations that are off-target: identified as another language than the target (section 4.1)."""

    def __init__(
        self,
        name: str,
        engine: LanguageIdentifier,
        options: Any,
        target: str,
        bounds: tuple[int, float],
        shard_size: int,
    ) -> None:
        self.name, self.engine, self.options, self.shard_size = name, engine, options, shard_size
        self.source, self.target = "", target
        self.min_letters, self.min_probability = bounds

    def settings(self) -> Any:
        bounds = [self.min_letters, self.min_probability]
        return {"engine": self.engine.identity, "options": self.options, "target": self.target, "bounds": bounds}

    def judge(self, pairs: list[TextPair]) -> list[tuple[Verdict, Row]]:
        return [(self._verdict(p, *found), {}) for p, found in zip(pairs, self._identify(pairs), strict=True)]

    def _identify(self, pairs: list[TextPair]) -> list[tuple[str | None, float]]:
        return self.engine.identify([p.target for p in pairs])

    def _verdict(self, pair: TextPair, code: str | None, probability: float) -> Verdict:
        if code == self.target or sum(map(str.isalpha, pair.target)) < self.min_letters:
            return None
        if probability < self.min_probability:
            return None
        return "off-target", f"identified as {code or 'another language'} ({probability:.2f})"


class Subsets(Stage):
    """The combinations (of LL, TL, LT, TT) of question and answer language (section 3.2.2); counts samples.

    ``subsets``: combination -> name of the subset its samples belong to.
    """

    name = "subsets"

    def __init__(self, pair: Pair, subsets: Mapping[str, str], shard_size: int) -> None:
        self.pair, self.subsets, self.shard_size = pair, dict(subsets), shard_size

    def settings(self) -> Any:
        return {"pair": list(self.pair), "subsets": self.subsets}

    def chosen(self, row: Row) -> list[str]:
        """The combinations made of one row."""
        return list(self.subsets)

    def process(self, rows: list[Row]) -> Outcome:
        out: list[Row] = []
        rejects: list[Row] = []
        entered = 0
        for row in rows:
            for combination in self.chosen(row):
                entered += 1
                sample = self._sample(row, combination)
                if sample is None:
                    about = {"key": row["key"], "question": row["question"]}
                    rejects.append({**about, "reason": f"{combination}: translation rejected"})
                else:
                    out.append(sample)
        return Outcome(out, entered, len(out), rejects)

    def _sample(self, row: Row, combination: str) -> Row | None:
        question = row["question"] if combination[0] == "L" else row["question_target"]
        answer = row["answer"] if combination[1] == "L" else row["answer_target"]
        if question is None or answer is None:
            return None
        return {
            "subset": self.subsets[combination],
            "combination": combination,
            "pair": pair_name(self.pair),
            "question": question,
            "answer": answer,
            "question_language": self.pair["LT".index(combination[0])],
            "answer_language": self.pair["LT".index(combination[1])],
            "source_key": row["source_key"],
            "origin": row["origin"],
        }


class DrawnSubsets(Subsets):
    """One combination a draw: the question in either language with probability 1/2, its answer in the other one with
    ``cross_probability`` (Li et al. 2023a, cross-lingual instruction following)."""

    def __init__(
        self, pair: Pair, subsets: Mapping[str, str], draws: CrossLingualConfig, seed: int, shard_size: int
    ) -> None:
        super().__init__(pair, subsets, shard_size)
        self.draws, self.seed = draws, seed

    def settings(self) -> Any:
        return {**super().settings(), "draws": asdict(self.draws), "seed": self.seed}

    def chosen(self, row: Row) -> list[str]:
        drawn = []
        for number in range(self.draws.repeat):
            rng = named_random(self.seed, "cross-lingual", pair_name(self.pair), row["key"], number)
            question = "LT"[rng.randrange(2)]
            other = {"L": "T", "T": "L"}[question]
            drawn.append(question + (other if rng.random() < self.draws.cross_probability else question))
        return drawn


class SwitchDictionary:
    """Dictionary per question language for one pair; read when first asked for, and not carried to other processes.

    ``target_questions``: see CodeSwitchConfig.
    """

    def __init__(self, engine: Dictionary, options: Any, pair: Pair, target_questions: str) -> None:
        self.engine, self.options, self.pair, self.target_questions = engine, options, pair, target_questions
        self._entries: dict[str, Entries] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_entries": None}

    @property
    def identity(self) -> Any:
        """What names the entries in a stage's fingerprint."""
        return [self.engine.identity, self.options, self.target_questions, *self.pair]

    def entries(self, code: str) -> Entries:
        """The dictionary for questions in the language ``code``; empty where they are left alone."""
        if self._entries is None:
            source, target = self.pair
            self._entries = {source: self.engine.entries(source, target)}
            if self.target_questions == "inverse":
                self._entries[target] = invert(self._entries[source], target)
            elif self.target_questions == "dictionary":
                self._entries[target] = self.engine.entries(target, source)
        return self._entries.get(code, {})


class CodeSwitch(Stage):
    """Eq. 5 on the questions of LL, TL, LT and TT; code, addresses and template lines in them are left alone.

    LL and LT share a question and draw independently, since the sample's combination is part of the seed's name; so is
    the pair, so that other pairs of the run change nothing.
    """

    name = "code-switch"

    def __init__(self, dictionary: SwitchDictionary, probability: float, seed: int, shard_size: int) -> None:
        self.dictionary, self.probability = dictionary, probability
        self.seed, self.shard_size = seed, shard_size

    def settings(self) -> Any:
        chosen = {"dictionary": self.dictionary.identity, "probability": self.probability, "seed": self.seed}
        return {**chosen, "words": words.identity()}

    def process(self, rows: list[Row]) -> Outcome:
        out: list[Row] = []
        notes: Counter[str] = Counter()
        for row in rows:
            about = (row["pair"], row["combination"], row["source_key"], row["origin"])
            rng = named_random(self.seed, "code-switch", *about)
            plain, code = row["question"], row["question_language"]
            question, replaced, found = code_switch(
                plain, self.dictionary.entries(code), self.probability, rng, code=code, protected=protected_parts(plain)
            )
            notes["tokens in the dictionary"] += found
            notes["tokens replaced"] += replaced
            out.append({**row, "question": question, "question_plain": plain, "switched": replaced})
        return Outcome(out, len(rows), len(rows), notes=notes)


class AnswerLanguage(Stage):
    """TL and LT questions say which language to answer in; LL and TT are left alone unless ``always``.

    Without it a Portuguese question is answered in English in TL and in Portuguese in TT, with equal weight in Eq. 6:
    the model cannot know which, and learns to answer off target. Comes after code-switching, so the request is whole.
    """

    name = "answer-language"

    def __init__(self, always: bool, shard_size: int) -> None:
        self.always, self.shard_size = always, shard_size

    def settings(self) -> Any:
        return {"text": answer_language_request("", "eng"), "always": self.always}

    def process(self, rows: list[Row]) -> Outcome:
        out = [
            {**row, "question": answer_language_request(row["question"], row["answer_language"])}
            if self.always or row["question_language"] != row["answer_language"]
            else row
            for row in rows
        ]
        return Outcome(out, len(rows), len(rows))


def for_validation(seed: int, fraction: float, source_key: str) -> bool:
    """Whether a question's or sentence pair's samples go to the validation set (``packing.validation_fraction``)."""
    return named_random(seed, "validation", source_key).random() < fraction


def require_rows(rows: Mapping[str, int], validation: Mapping[str, int] | None = None) -> None:
    """SdrrlError when a subset of Eq. 6 came out empty: its term 1/|D_d| has no value."""
    for subset, count in rows.items():
        if count == 0:
            raise SdrrlError(
                f"subset {subset} has no sample left, so Eq. 6 has no value; look at the rejects under "
                "output_dir/stages and relax quality.tau or the filters"
            )
    for subset, count in (validation or {}).items():
        if count == 0:
            raise SdrrlError(
                f"packing.validation_fraction: subset {subset} has no sample in the validation set, so Eq. 6 has no "
                "value there; raise the fraction"
            )
