"""The preprocessing of one configuration from top to bottom: instruction sets D -> packed transfer set."""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, sha256_file
from sdrrl_nemo.data import chosen_engines as roles
from sdrrl_nemo.data import licences
from sdrrl_nemo.data.config import NO_CORPUS, NO_TRANSLATOR, Pair, PreprocessConfig, settings
from sdrrl_nemo.data.execution import Executor, make_executor
from sdrrl_nemo.data.execution.stage_runner import (
    NO_INPUT,
    Runner,
    Source,
    Stage,
    StageResult,
    concatenate,
    fingerprint,
    remove_leftovers,
)
from sdrrl_nemo.data.filters import Duplicate
from sdrrl_nemo.data.methods import plan
from sdrrl_nemo.data.outputs import HeldOut, Publication, publish_outputs
from sdrrl_nemo.data.pairs import for_language, for_pair, language_pairs, pair_name, sources_of
from sdrrl_nemo.data.readers import content_of
from sdrrl_nemo.data.stages.answer_language import AnswerLanguage
from sdrrl_nemo.data.stages.code_switch import CodeSwitch, SwitchDictionary
from sdrrl_nemo.data.stages.combine import DrawnSubsets, Subsets
from sdrrl_nemo.data.stages.deduplicate import Duplicates
from sdrrl_nemo.data.stages.generate import Generate
from sdrrl_nemo.data.stages.ingest import Ingest
from sdrrl_nemo.data.stages.judge import Heuristics, LanguageId, Quality
from sdrrl_nemo.data.stages.order import Order, for_validation, require_rows
from sdrrl_nemo.data.stages.parallel_corpus import SelectPairs, Templates
from sdrrl_nemo.data.stages.synthesise import Sample, draws_y_hat, synth_row
from sdrrl_nemo.data.stages.tokenize import Tokenize
from sdrrl_nemo.data.stages.translate import Translate
from sdrrl_nemo.data.summary import print_engines, print_summary
from sdrrl_nemo.data.text.tokenizer import check_model_folder, load_tokenizer, tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = "sdrrl-transfer-set/2"


@contextlib.contextmanager
def output_lock(directory: Path) -> Iterator[None]:
    """Only one run at a time may write ``directory``; the kernel lets go of the lock when a run dies."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SdrrlError(
                f"{directory}: another run is writing here; wait for it or choose another output_dir"
            ) from None
        yield


def request_fingerprint(config: PreprocessConfig) -> str:
    """What was asked for: settings, bytes of the instruction set, the model folder's files; no engine is loaded."""
    folder = check_model_folder(config.model)
    model = {
        p.name: p.stat().st_size if p.stat().st_size > 1 << 24 else sha256_file(p)
        for p in sorted(folder.iterdir())
        if p.is_file()
    }
    sources = sources_of(language_pairs(config))
    instructions = [content_of(for_language(config, source).instructions.path) for source in sources]
    return fingerprint([FORMAT, settings(config), instructions, model])


def finished(config: PreprocessConfig, request: str) -> dict[str, Any] | None:
    """stats.json of a finished run of the same request whose files are all whole, else None."""
    directory = Path(config.output_dir)
    path = directory / "stats.json"
    if not path.is_file():
        return None
    stats: dict[str, Any] = read_json(path)
    if stats.get("request") != request:
        return None
    whole = all((directory / n).is_file() and sha256_file(directory / n) == s for n, s in stats["files"].items())
    return stats if whole else None


@dataclass
class Pipeline:
    """The stages in order, source by source, pair by pair. Engines load what they need when they are first called."""

    config: PreprocessConfig
    engines: roles.Engines
    executor: Executor

    def __post_init__(self) -> None:
        self.runner = Runner(Path(self.config.output_dir) / "stages", self.executor, self.config.execution)
        self.plan = plan(self.config)
        self.pairs = self.plan.pairs
        self.sources = sources_of(self.pairs)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.config.model)

    def run(self, request: str) -> dict[str, Any]:
        """All stages, then the final files; returns stats.json's content."""
        samples: list[Source] = []
        held_out: dict[Pair, HeldOut] = {}
        for source in self.sources:
            instructions = self._ingest(source)
            synth = self._synthesise(source, instructions.where("train", lambda r: r["split"] == "train"))
            held = instructions.where("held-out", lambda r: r["split"] == "held-out")
            for pair in (p for p in self.pairs if p[0] == source):
                questions, parallel, held_out[pair] = self._one_pair(pair, synth, held)
                samples += [*questions, *parallel]
        order = self.runner.run(Order(self.config.seed), concatenate(samples))
        tokens = self._tokenize(order.source())
        self._require_samples(tokens)
        publication = Publication(
            directory=Path(self.config.output_dir),
            request=request,
            plan=self.plan,
            tokenizer=self.tokenizer,
            packing=self.config.packing,
            seed=self.config.seed,
            engines=self.engines.table(),
            licences=licences.inputs(self.config, self.sources),
            stages=self.runner.results,
            configuration=settings(self.config),
        )
        return publish_outputs(publication, tokens, held_out)

    def _run(self, stage: Stage, rows: Source, where: str | Pair) -> Source:
        """Run a stage; where a run has several sources or pairs its name says for which one."""
        if isinstance(where, str):
            suffix = f".{where}" if len(self.sources) > 1 else ""
        else:
            suffix = f".{pair_name(where)}" if len(self.pairs) > 1 else ""
        stage.name += suffix
        return self.runner.run(stage, rows).source()

    def _ingest(self, source: str) -> Source:
        section = for_language(self.config, source).instructions
        return self._run(Ingest(section, content_of(section.path), self.config.seed), NO_INPUT, source)

    def _synthesise(self, source: str, questions: Source) -> Source:
        """y_hat, then D_synth (Eq. 4). Where one of y and y_hat is drawn, only the questions that draw y_hat are asked:
        the draw needs nothing but the key, so the result is that of answering all and drawing afterwards."""
        c, mode = for_language(self.config, source), self.plan.synth
        if not self.plan.uses_questions(source):
            return questions.where("no subset of questions", lambda r: False)
        rows = questions
        if self.plan.asks_the_model(source):
            asked, others = questions, []
            if mode == "sample":
                asked = questions.where("draws y_hat", lambda r: draws_y_hat(c.seed, r["key"]))
                others = [questions.where("draws y", lambda r: not draws_y_hat(c.seed, r["key"]))]
            stage = Generate(
                engine=self.engines.get("generator", c),
                filters=roles.filters_of(c.generation.filters),
                language=source,
                shard_size=c.generation.shard_size,
                options=[roles.plain(c.generation.engine), [roles.plain(f) for f in c.generation.filters]],
            )
            rows = concatenate([*others, self._run(stage, asked, source)])
        return self._run(Sample(mode, c.seed, c.shard_size), rows, source)

    def _one_pair(self, pair: Pair, synth: Source, held: Source) -> tuple[list[Source], list[Source], HeldOut]:
        """Samples from D_synth, samples from the parallel corpus, and the held-out rows of one pair."""
        c = for_pair(self.config, pair)
        held_questions = self._held_out(c, pair, held)
        questions = self._subsets(c, pair, synth)
        if c.parallel.engine.name == NO_CORPUS:
            return questions, [], HeldOut(held_questions, held.where("no corpus", lambda r: False))
        parallel = self._parallel(c, pair)
        samples = self._templates(c, pair, parallel.where("train", lambda r: r["split"] == "train"))
        held_pairs = parallel.where("held-out", lambda r: r["split"] == "held-out")
        return questions, samples, HeldOut(held_questions, held_pairs)

    def _translate(self, c: PreprocessConfig, pair: Pair, rows: Source, prefix: str) -> Source:
        """Translate, then reject by quality, heuristics, language id, and as a repeat; ``prefix`` tells the held-out
        chain apart, which keeps repeats."""
        e, size, qe, lid = self.engines, c.shard_size, c.quality, c.language_id
        bounds, filters = (lid.min_letters, lid.min_probability), roles.filters_of(c.filters)
        identifier = e.get("language_id", c)
        chain = (
            Translate(f"{prefix}translate", e.get("translator", c), roles.plain(c.translation), pair, size),
            Quality(f"{prefix}quality", e.get("quality", c), roles.plain(qe.engine), qe.tau, size),
            Heuristics(f"{prefix}heuristics", c.filters, filters, pair, size),
            LanguageId(f"{prefix}language-id", identifier, roles.plain(lid.engine), pair[1], bounds, size),
        )
        for stage in chain:
            rows = self._run(stage, rows, pair)
        if prefix or c.duplicates.sides == "none":
            return rows
        judge = Duplicate(c.duplicates.sides, c.duplicates.min_characters)
        return self._run(Duplicates("duplicates", judge, pair, size), rows, pair)

    def _held_out(self, c: PreprocessConfig, pair: Pair, rows: Source) -> Source:
        """Held-out questions whose question and answer both have a translation that passed; none without translator."""
        if c.translation.name == NO_TRANSLATOR:
            return rows.where("no translator", lambda r: False)
        plain = Source(
            fingerprint([rows.fingerprint, "y"]),
            lambda: (synth_row(r, "y", r["answer"]) for r in rows.read()),
            rows.total,
        )
        judged = self._translate(c, pair, plain, "held-out-")
        return judged.where("complete", lambda r: r["question_target"] is not None and r["answer_target"] is not None)

    def _subsets(self, c: PreprocessConfig, pair: Pair, synth: Source) -> list[Source]:
        """The combinations of the method with code-switched questions; questions ask for their answer's language where
        the configuration says so."""
        todo, names = self.plan.recipes[pair], self.plan.combinations_of(pair)
        if not names:
            return []
        rows = self._translate(c, pair, synth, "") if todo.needs_translation else synth
        drawn = DrawnSubsets(pair, names, c.cit, c.seed, c.shard_size) if todo.draws else None
        rows = self._run(drawn or Subsets(pair, names, c.shard_size), rows, pair)
        if todo.code_switch:
            section = c.code_switch
            engine, options = self.engines.get("dictionary", c), roles.plain(section.dictionary)
            dictionary = SwitchDictionary(engine, options, pair, section.target_questions)
            rows = self._run(CodeSwitch(dictionary, section.probability, c.seed, c.shard_size), rows, pair)
        if self.plan.answer_language != "implicit":
            rows = self._run(AnswerLanguage(self.plan.answer_language == "always", c.shard_size), rows, pair)
        return [rows]

    def _parallel(self, c: PreprocessConfig, pair: Pair) -> Source:
        section = c.parallel
        sizes = (section.train_pairs, section.held_out_pairs)
        stage = SelectPairs(self.engines.get("corpus", c), roles.plain(section.engine), pair, sizes, c.seed)
        return self._run(stage, NO_INPUT, pair)

    def _templates(self, c: PreprocessConfig, pair: Pair, rows: Source) -> list[Source]:
        names = self.plan.parallel_of(pair)
        if not names:
            return []
        wording = (c.parallel.instruction_language, c.parallel.split)
        return [self._run(Templates(pair, names, wording, c.seed, c.shard_size), rows, pair)]

    def _tokenize(self, samples: Source) -> StageResult:
        size = self.config.packing.seq_length
        stage = Tokenize(self.tokenizer, tokenizer_sha256(self.tokenizer), size, self.config.shard_size)
        return self.runner.run(stage, samples)

    def _require_samples(self, tokens: StageResult) -> None:
        seed, fraction = self.config.seed, self.config.packing.validation_fraction
        counts = Counter(
            (for_validation(seed, fraction, row["source_key"]), row["subset"]) for row in tokens.source().read()
        )
        train, held = ({d: counts[part, d] for d in self.plan.subset_names()} for part in (False, True))
        require_rows(train, held if fraction else None)


def preprocess(config: PreprocessConfig, directory: Path) -> dict[str, Any]:
    """Run what is left to do for ``config`` and print the tables; returns stats.json's content."""
    with output_lock(directory):
        request = request_fingerprint(config)
        stats = finished(config, request)
        if stats is not None:
            print_summary(stats, str(directory))
            print("Nothing to do: this output is finished and its files are whole.")
            return stats
        remove_leftovers(directory)
        engines = roles.Engines(config)
        parts = licences.inputs(config, sources_of(plan(config).pairs))
        print_engines(engines.table(), parts)
        with contextlib.closing(make_executor(config.execution)) as executor:
            stats = Pipeline(config, engines, executor).run(request)
        print_summary(stats, str(directory))
        return stats
