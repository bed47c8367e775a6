"""The steps of section 3.2 as calls: each runs its stages on rows and gives rows. tools/preprocess_sdrrl.py has them in
order.

A step is named after what the paper calls it. What it does to a row is in ``stages/``; here it gets its engines, its
part of the configuration and its name in the run. Nothing is computed until rows are asked for, and a finished stage
is read from its files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from sdrrl_nemo.data import chosen_engines, licences
from sdrrl_nemo.data.config import NO_CORPUS, NO_TRANSLATOR, Pair, PreprocessConfig, settings
from sdrrl_nemo.data.conversations import first_exchange
from sdrrl_nemo.data.execution import Executor
from sdrrl_nemo.data.execution.stage import In, Out
from sdrrl_nemo.data.execution.stage_runner import (
    NO_INPUT,
    Runner,
    Source,
    Stage,
    StageResult,
    concatenate,
    fingerprint,
)
from sdrrl_nemo.data.filters import Duplicate
from sdrrl_nemo.data.methods import plan
from sdrrl_nemo.data.outputs import HeldOut, Publication, publish_outputs
from sdrrl_nemo.data.pairs import for_language, for_pair, pair_name, sources_of
from sdrrl_nemo.data.readers import content_of
from sdrrl_nemo.data.rows import InstructionRow, OrderedRow, PairRow, SampleRow, SynthRow, TokenizedRow, TranslatedRow
from sdrrl_nemo.data.stages.answer_language import AnswerLanguage
from sdrrl_nemo.data.stages.checks.llm_judge import LlmJudge
from sdrrl_nemo.data.stages.checks.round_trip import RoundTrip
from sdrrl_nemo.data.stages.code_switch import CodeSwitch, SwitchDictionary
from sdrrl_nemo.data.stages.combine import DrawnSubsets, Subsets
from sdrrl_nemo.data.stages.deduplicate import Duplicates
from sdrrl_nemo.data.stages.generate import Generate
from sdrrl_nemo.data.stages.ingest import Ingest, require_share
from sdrrl_nemo.data.stages.judge import Heuristics, Judge, LanguageId, Quality
from sdrrl_nemo.data.stages.order import Order, for_validation, require_rows
from sdrrl_nemo.data.stages.parallel_corpus import SelectPairs, Templates
from sdrrl_nemo.data.stages.synthesise import Sample, draws_y_hat, synth_row
from sdrrl_nemo.data.stages.tokenize import Tokenize
from sdrrl_nemo.data.stages.translate import Translate
from sdrrl_nemo.data.text.conversation import Chat
from sdrrl_nemo.data.text.tokenizer import load_chat, tokenizer_sha256

NOTHING: Source[Any] = Source("nothing", lambda: iter(()), 0)
"""No rows."""


class Steps:
    """The steps of one run. Engines load what they need when they are first called."""

    def __init__(self, config: PreprocessConfig, engines: chosen_engines.Engines, executor: Executor) -> None:
        self.config, self.engines = config, engines
        self.runner = Runner(Path(config.output_dir) / "stages", executor, config.execution)
        self.plan = plan(config)
        """What the method makes, pair by pair: data/methods.py."""
        self.pairs = self.plan.pairs
        self.sources = sources_of(self.pairs)

    def _run(self, stage: Stage[In, Out], rows: Source[In], where: str | Pair) -> Source[Out]:
        return self._result(stage, rows, where).source()

    def _result(self, stage: Stage[In, Out], rows: Source[In], where: str | Pair) -> StageResult[Out]:
        """Run a stage; where a run has several sources or pairs its name says for which one."""
        if isinstance(where, str):
            suffix = f".{where}" if len(self.sources) > 1 else ""
        else:
            suffix = f".{pair_name(where)}" if len(self.pairs) > 1 else ""
        stage.name += suffix
        return self.runner.run(stage, rows)

    # --- D: instructions in a resource-rich language ---

    def instructions(self, source: str) -> tuple[Source[InstructionRow], Source[InstructionRow]]:
        """(training questions with their answers y, held-out ones)."""
        section = for_language(self.config, source).instructions
        stage = Ingest(section, content_of(section.path), self.config.seed, self.config.turns)
        read = self._result(stage, NO_INPUT, source)
        if stage.left_out(read.statistics()["notes"]):
            stage.name, stage.anew = Ingest.name, True
            self.runner.results.pop()
            read = self._result(stage, NO_INPUT, source)
        require_share(section, read.statistics()["in"], read.rejects())
        rows = read.source()
        train = rows.where("train", lambda r: r["split"] == "train")
        return train, rows.where("held-out", lambda r: r["split"] == "held-out")

    # --- section 3.2.1: self-distillation ---

    def generate(self, source: str, questions: Source[InstructionRow]) -> Source[InstructionRow]:
        """y_hat = M(x). Where one of y and y_hat is drawn (Eq. 4), only the questions that draw y_hat are asked.

        The draw needs nothing but a question's key, so the result is that of asking all and drawing afterwards, in half
        the time.
        """
        c = for_language(self.config, source)
        asked, others = questions, []
        if self.plan.synth == "sample":
            asked = questions.where("draws y_hat", lambda r: draws_y_hat(c.seed, r["key"]))
            others = [questions.where("draws y", lambda r: not draws_y_hat(c.seed, r["key"]))]
        stage = Generate(
            engine=self.engines.get("generator", c),
            filters=chosen_engines.filters_of(c.generation.filters),
            language=source,
            shard_size=c.generation.shard_size,
            options=[
                chosen_engines.plain(c.generation.engine),
                [chosen_engines.plain(f) for f in c.generation.filters],
            ],
            thinking=c.generation.thinking,
        )
        return concatenate([*others, self._run(stage, asked, source)])

    def synthesise(self, source: str, answered: Source[InstructionRow]) -> Source[SynthRow]:
        """D_synth (Eq. 4): y or y_hat of each question, or both."""
        c = for_language(self.config, source)
        filters = chosen_engines.filters_of(c.synth.filters)
        options = [chosen_engines.plain(f) for f in c.synth.filters]
        stage = Sample(self.plan.synth, c.seed, c.shard_size, filters, options, source)
        return self._run(stage, answered, source)

    # --- section 3.2.2: translation and the four combinations ---

    def translate(self, pair: Pair, synth: Source[SynthRow]) -> Source[TranslatedRow]:
        """Questions and answers with the translations that passed every judge."""
        c = for_pair(self.config, pair)
        rows = self._translate_and_judge(c, pair, synth, "")
        if c.duplicates.sides == "none":
            return rows
        judge = Duplicate(c.duplicates.sides, c.duplicates.min_characters)
        return self._run(Duplicates("duplicates", judge, pair, c.shard_size), rows, pair)

    def _translate_and_judge(
        self, c: PreprocessConfig, pair: Pair, synth: Source[SynthRow], prefix: str
    ) -> Source[TranslatedRow]:
        """Translate, then reject by estimated quality, by heuristics, by language and by the optional checks. A
        rejected translation becomes None and its row stays: LL needs no translation, LT only that of the answer."""
        e, size, qe, lid = self.engines, c.shard_size, c.quality, c.language_id
        bounds, filters = (lid.min_letters, lid.min_probability), chosen_engines.filters_of(c.filters)
        plain = chosen_engines.plain
        translate = Translate(f"{prefix}translate", e.get("translator", c), plain(c.translation), pair, size)
        rows = self._run(translate, synth, pair)
        judges: list[Judge] = [
            Quality(f"{prefix}quality", e.get("quality", c), plain(qe.engine), qe.tau, size, pair),
            Heuristics(f"{prefix}heuristics", c.filters, filters, pair, size),
            LanguageId(f"{prefix}language-id", e.get("language_id", c), plain(lid.engine), pair[1], bounds, size),
        ]
        if c.round_trip.engine.name:  # the dearest last: what a cheaper judge rejects need not be asked about
            judges.append(RoundTrip(f"{prefix}round-trip", e.get("round_trip", c), c.round_trip, pair, size))
        if c.llm_judge.engine.name:
            judges.append(LlmJudge(f"{prefix}llm-judge", e.get("llm_judge", c), c.llm_judge, pair, size))
        for judge in judges:
            rows = self._run(judge, rows, pair)
        return rows

    @staticmethod
    def untranslated(synth: Source[SynthRow]) -> Source[TranslatedRow]:
        """D_synth as it is, for a method whose only combination is LL: nobody asks these rows for a translation."""
        return cast("Source[TranslatedRow]", synth)

    def combine(self, pair: Pair, rows: Source[TranslatedRow]) -> Source[SampleRow]:
        """LL, TL, LT, TT: languages of question and answer, as far as the method wants them and translations passed."""
        c, names = for_pair(self.config, pair), self.plan.combinations_of(pair)
        if self.plan.recipes[pair].draws:
            return self._run(DrawnSubsets(pair, names, c.cit, c.seed, c.shard_size), rows, pair)
        return self._run(Subsets(pair, names, c.shard_size), rows, pair)

    # --- section 3.2.3: code-switching ---

    def code_switch(self, pair: Pair, samples: Source[SampleRow]) -> Source[SampleRow]:
        """Words of the questions replaced by their translations, each with probability p (Eq. 5)."""
        c = for_pair(self.config, pair)
        section = c.code_switch
        engine, options = self.engines.get("dictionary", c), chosen_engines.plain(section.dictionary)
        dictionary = SwitchDictionary(engine, options, pair, section.target_questions, section.most_pairs)
        return self._run(CodeSwitch(dictionary, section.probability, c.seed, c.shard_size), samples, pair)

    def answer_language(self, pair: Pair, samples: Source[SampleRow]) -> Source[SampleRow]:
        """Questions end with a line that names the language of their answer."""
        always, size = self.plan.answer_language == "always", for_pair(self.config, pair).shard_size
        return self._run(AnswerLanguage(always, size), samples, pair)

    # --- section 3.2.4: external parallel corpus ---

    def parallel_corpus(self, pair: Pair) -> tuple[Source[PairRow], Source[PairRow]]:
        """(sentence pairs for training, held-out ones); no held-out sentence is in a training pair. Both are empty
        where the configuration names no corpus."""
        c = for_pair(self.config, pair)
        section = c.parallel
        if section.engine.name == NO_CORPUS:
            return NOTHING, NOTHING
        sizes, options = (section.train_pairs, section.held_out_pairs), chosen_engines.plain(section.engine)
        stage = SelectPairs(self.engines.get("corpus", c), options, pair, sizes, c.seed)
        rows = self._run(stage, NO_INPUT, pair)
        train = rows.where("train", lambda r: r["split"] == "train")
        return train, rows.where("held-out", lambda r: r["split"] == "held-out")

    def templates(self, pair: Pair, pairs: Source[PairRow]) -> Source[SampleRow] | None:
        """D_mt and D_comp by the instructions of Table 1; None where the method makes neither."""
        c, names = for_pair(self.config, pair), self.plan.parallel_of(pair)
        if not names:
            return None
        wording = (c.parallel.instruction_language, c.parallel.split)
        return self._run(Templates(pair, names, wording, c.seed, c.shard_size), pairs, pair)

    # --- what evaluation gets ---

    def held_out_questions(self, pair: Pair, held_out: Source[InstructionRow]) -> Source[TranslatedRow]:
        """Held-out questions whose question and answer both have a translation that passed; none without translator.

        Of a conversation the first exchange, for evaluation asks one question at a time.
        """
        c = for_pair(self.config, pair)
        if c.translation.name == NO_TRANSLATOR:
            return NOTHING
        plain = Source(
            fingerprint([held_out.fingerprint, "y"]),
            lambda: (synth_row(r, "y", r["answer"]) for r in map(first_exchange, held_out.read())),
            held_out.total,
        )
        judged = self._translate_and_judge(c, pair, plain, "held-out-")
        return judged.where("complete", lambda r: r["question_target"] is not None and r["answer_target"] is not None)

    # --- the packed transfer set ---

    def order(self, samples: Iterable[Source[SampleRow]]) -> Source[OrderedRow]:
        """All samples in one order that mixes the subsets, exact repeats dropped."""
        return self.runner.run(Order(self.config.seed), concatenate(samples)).source()

    @cached_property
    def chat(self) -> Chat:
        """The base model's tokenizer with the run's chat template."""
        return load_chat(self.config.model, self.config.templates)

    def tokenize(self, samples: Source[OrderedRow]) -> StageResult[TokenizedRow]:
        """Token ids with the loss mask; SdrrlError when a subset is left without a sample."""
        size = self.config.packing.seq_length
        about = (tokenizer_sha256(self.chat.tokenizer), size, self.config.shard_size)
        stage = Tokenize(self.chat, *about, supervise=self.config.turns.supervise)
        tokens = self.runner.run(stage, samples)
        self._require_samples(tokens)
        return tokens

    def _require_samples(self, tokens: StageResult[TokenizedRow]) -> None:
        seed, fraction = self.config.seed, self.config.packing.validation_fraction
        counts = Counter(
            (for_validation(seed, fraction, row["source_key"]), row["subset"]) for row in tokens.source().read()
        )
        train, held = ({d: counts[part, d] for d in self.plan.subset_names()} for part in (False, True))
        require_rows(train, held if fraction else None)

    def publish(
        self, request: str, tokens: StageResult[TokenizedRow], held_out: Mapping[Pair, HeldOut]
    ) -> dict[str, Any]:
        """Pack, and write the final files, stats.json last; returns its content."""
        publication = Publication(
            directory=Path(self.config.output_dir),
            request=request,
            plan=self.plan,
            tokenizer=self.chat.tokenizer,
            packing=self.config.packing,
            seed=self.config.seed,
            engines=self.engines.table(),
            licences=licences.inputs(self.config, self.sources),
            stages=self.runner.results,
            configuration=settings(self.config),
        )
        return publish_outputs(publication, tokens, held_out)
