"""The preprocessing of one configuration from top to bottom: instruction set D -> packed transfer set."""

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
from sdrrl_nemo.data import roles
from sdrrl_nemo.data.codeswitch import Entries, invert
from sdrrl_nemo.data.config import PreprocessConfig, settings
from sdrrl_nemo.data.generation import Generate
from sdrrl_nemo.data.outputs import Publication, publish_outputs
from sdrrl_nemo.data.parallel import Order, SelectPairs, Templates
from sdrrl_nemo.data.runner import NO_INPUT, Runner, Source, StageResult, concatenate, fingerprint, remove_leftovers
from sdrrl_nemo.data.stages import (
    AnswerLanguage,
    CodeSwitch,
    Heuristics,
    Ingest,
    LanguageId,
    Quality,
    Sample,
    Subsets,
    Translate,
    draws_y_hat,
    require_rows,
    synth_row,
)
from sdrrl_nemo.data.subsets import SUBSETS
from sdrrl_nemo.data.summary import print_engines, print_summary
from sdrrl_nemo.data.tokenization import Tokenize, check_model_folder, load_tokenizer, tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = "sdrrl-transfer-set/1"


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
    return fingerprint([FORMAT, settings(config), sha256_file(config.instructions.path), model])


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
    """The stages in order. Engines load what they need when they are first called."""

    config: PreprocessConfig
    engines: roles.Engines

    def __post_init__(self) -> None:
        self.runner = Runner(Path(self.config.output_dir) / "stages")
        self.pair = (self.config.source_language, self.config.target_language)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.config.model)

    def run(self, request: str) -> dict[str, Any]:
        """All stages, then the final files; returns stats.json's content."""
        ingest = self._ingest()
        instructions = ingest.source()
        synth = self._synthesise(instructions.where("train", lambda r: r["split"] == "train"))
        translated = self._translate(synth, "")
        held = self._held_out(instructions.where("held-out", lambda r: r["split"] == "held-out"))
        questions = self._subsets(translated)
        pairs = self._pairs()
        samples = self._templates(pairs.where("train", lambda r: r["split"] == "train"))
        order = self.runner.run(Order(self.config.seed), concatenate([questions, samples]))
        tokens = self._tokenize(order.source())
        counts = Counter(row["subset"] for row in tokens.source().read())
        require_rows({d: counts[d] for d in SUBSETS})
        publication = Publication(
            directory=Path(self.config.output_dir),
            request=request,
            languages=self.pair,
            tokenizer=self.tokenizer,
            packing=self.config.packing,
            seed=self.config.seed,
            engines=self.engines.table(self.config),
            stages=self.runner.results,
        )
        held_pairs = (r for r in pairs.read() if r["split"] == "held-out")
        return publish_outputs(publication, tokens, held.read(), held_pairs)

    def _ingest(self) -> StageResult:
        section = self.config.instructions
        return self.runner.run(Ingest(section, sha256_file(section.path), self.config.seed), NO_INPUT)

    def _synthesise(self, questions: Source) -> Source:
        """y_hat, then D_synth (Eq. 4). Where one of y and y_hat is drawn, only the questions that draw y_hat are asked:
        the draw needs nothing but the key, so the result is that of answering all and drawing afterwards."""
        c = self.config
        asked, others = questions, []
        if c.synth.mode == "sample":
            asked = questions.where("draws y_hat", lambda r: draws_y_hat(c.seed, r["key"]))
            others = [questions.where("draws y", lambda r: not draws_y_hat(c.seed, r["key"]))]
        stage = Generate(
            engine=self.engines.generator,
            filters=self.engines.answer_filters,
            language=c.source_language,
            sizes=(c.generation.shard_size, c.generation.batch_size),
            options=[roles.plain(c.generation.engine), [roles.plain(f) for f in c.generation.filters]],
        )
        answered = self.runner.run(stage, asked).source()
        return self.runner.run(Sample(c.synth.mode, c.seed, c.shard_size), concatenate([*others, answered])).source()

    def _translate(self, rows: Source, prefix: str) -> Source:
        """Translate, then reject by quality, heuristics and language id; ``prefix`` tells the held-out chain apart."""
        c, e, size = self.config, self.engines, self.config.shard_size
        qe, lid = c.quality, c.language_id
        bounds = (lid.min_letters, lid.min_probability)
        chain = (
            Translate(f"{prefix}translate", e.translator, roles.plain(c.translation), *self.pair, size),
            Quality(f"{prefix}quality", e.quality, roles.plain(qe.engine), qe.tau, size),
            Heuristics(f"{prefix}heuristics", c.filters, e.filters, self.pair, size),
            LanguageId(f"{prefix}language-id", e.language_id, roles.plain(lid.engine), self.pair[1], bounds, size),
        )
        for stage in chain:
            rows = self.runner.run(stage, rows).source()
        return rows

    def _held_out(self, rows: Source) -> Source:
        """Held-out questions whose question and answer both have a translation that passed."""
        plain = Source(
            fingerprint([rows.fingerprint, "y"]),
            lambda: (synth_row(r, "y", r["answer"]) for r in rows.read()),
            rows.total,
        )
        judged = self._translate(plain, "held-out-")
        return judged.where("complete", lambda r: r["question_target"] is not None and r["answer_target"] is not None)

    def _subsets(self, translated: Source) -> Source:
        """LL TL LT TT with code-switched questions; TL and LT ask for their answer's language where configured."""
        c = self.config
        four = self.runner.run(Subsets(*self.pair, c.shard_size), translated)
        entries, identity = self._dictionaries()
        stage = CodeSwitch(entries, identity, c.code_switch.probability, c.seed, c.shard_size)
        switched = self.runner.run(stage, four.source()).source()
        if c.subsets.answer_language == "implicit":
            return switched
        return self.runner.run(AnswerLanguage(c.shard_size), switched).source()

    def _dictionaries(self) -> tuple[dict[str, Entries], Any]:
        """Dictionary per question language, and what names them in the fingerprint."""
        section, engine = self.config.code_switch, self.engines.dictionary
        source, target = self.pair
        entries: dict[str, Entries] = {source: engine.entries(source, target)}
        if section.target_questions == "inverse":
            entries[target] = invert(entries[source])
        elif section.target_questions == "dictionary":
            entries[target] = engine.entries(target, source)
        return entries, [engine.identity, roles.plain(section.dictionary), section.target_questions, *self.pair]

    def _pairs(self) -> Source:
        section = self.config.parallel
        sizes = (section.train_pairs, section.held_out_pairs)
        stage = SelectPairs(self.engines.corpus, roles.plain(section.engine), self.pair, sizes, self.config.seed)
        return self.runner.run(stage, NO_INPUT).source()

    def _templates(self, pairs: Source) -> Source:
        return self.runner.run(Templates(*self.pair, self.config.seed, self.config.shard_size), pairs).source()

    def _tokenize(self, samples: Source) -> StageResult:
        size = self.config.packing.seq_length
        stage = Tokenize(self.tokenizer, tokenizer_sha256(self.tokenizer), size, self.config.shard_size)
        return self.runner.run(stage, samples)


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
        engines = roles.build(config)
        print_engines(engines.table(config))
        stats = Pipeline(config, engines).run(request)
        print_summary(stats, str(directory))
        return stats
