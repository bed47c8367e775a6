"""The language model as its own translator: any generator with a translation prompt (self-translation)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.data.engines.base import GENERATORS, TRANSLATORS, Generator, Translator
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.data.text.thinking import without_thoughts

REVISION = 1
"""Changes whenever the code here may give another translation of the same text."""
PROMPT = (
    "Translate the following text from {source} into {target}. "
    "Do not answer it and do not explain; give the translation alone."
)
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "'": "'", "‘": "’"}


@TRANSLATORS.register("llm_translate")
class LlmTranslator(Translator):
    """``generator`` names a backend of the generators, ``options`` are its options (``unfinished`` is always 'drop', so
    that a translation cut at ``max_new_tokens`` is '').

    ``prompt`` may use {source} and {target}, the languages' English names; the text follows after an empty line. With
    ``shots`` the first so many lines of ``examples`` come before it; that is a UTF-8 file of source, tab, translation,
    and its name, not its folder's, may hold {source} and {target}, which stand for ISO 639-3 codes. Labels and quotes
    that the model puts around the translation are taken off. An answer that is no translation is the business of the
    filters after it.
    """

    def __init__(
        self,
        generator: str,
        options: Mapping[str, Any] | None = None,
        prompt: str = PROMPT,
        shots: int = 0,
        examples: str = "",
    ) -> None:
        options = dict(options or {})
        if options.setdefault("unfinished", "drop") != "drop":
            raise SdrrlError("translator 'llm_translate': options.unfinished must be 'drop'; a cut translation is none")
        if "unfinished" not in inspect.signature(GENERATORS.factory(generator)).parameters:
            raise SdrrlError(
                f"translator 'llm_translate': generator '{generator}' has no option 'unfinished', so cut translations "
                "would pass for whole ones"
            )
        if shots < 0 or bool(shots) != bool(examples):
            raise SdrrlError("translator 'llm_translate': give both 'shots' (>= 1) and 'examples', or neither")
        try:
            prompt.format(source="x", target="y")
        except (KeyError, IndexError, ValueError) as e:
            raise SdrrlError(
                f"translator 'llm_translate': prompt may hold {{source}} and {{target}} alone ({type(e).__name__}: {e})"
            ) from None
        self._generator: Generator = GENERATORS.create(generator, **options)
        self._prompt, self._shots, self._examples = prompt, shots, examples
        self.licence, self.noncommercial = self._generator.licence, self._generator.noncommercial

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """The generator's identity and the prompt."""
        return f"llm_translate/{content_key(REVISION, self._prompt, self._shots)}/{self._generator.identity}"

    def files(self, *languages: str) -> Iterable[Path]:
        return [*self._generator.files(), *([self._examples_of(*languages)] if self._shots else [])]

    def check(self, *languages: str) -> None:
        """Whether the generator can be used, and the pair has its examples."""
        super().check(*languages)
        self._pairs(*languages)
        self._generator.check(languages[0])

    def try_out(self) -> None:
        """What the generator tries."""
        self._generator.try_out()

    def _examples_of(self, source: str, target: str) -> Path:
        path = Path(self._examples)
        path = path.with_name(path.name.replace("{source}", source).replace("{target}", target))
        if not path.is_file():
            raise SdrrlError(f"translator 'llm_translate': examples file {path} does not exist")
        return path

    @cached_property
    def _shown(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        return {}

    def _pairs(self, source: str, target: str) -> list[tuple[str, str]]:
        """The first ``shots`` examples of a pair."""
        if not self._shots:
            return []
        if (source, target) not in self._shown:
            self._shown[source, target] = read_examples(self._examples_of(source, target), self._shots)
        return self._shown[source, target]

    def question(self, text: str, source: str, target: str) -> str:
        """What the generator is asked for one text."""
        names = language(source).name, language(target).name
        parts = [self._prompt.format(source=names[0], target=names[1])]
        pairs = self._pairs(source, target)
        if not pairs:
            return f"{parts[0]}\n\n{text}"
        parts += [f"{names[0]}: {a}\n{names[1]}: {b}" for a, b in pairs]
        return "\n\n".join([*parts, f"{names[0]}: {text}\n{names[1]}:"])

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        names = language(source).name, language(target).name
        wanted = sorted({text for text in texts if text.strip()})
        answers = self._generator.generate([self.question(text, source, target) for text in wanted]) if wanted else []
        done = {text: clean(answer, text, *names) for text, answer in zip(wanted, answers, strict=True)}
        out = [done.get(text, text) for text in texts]
        self.incomplete += sum(bool(text.strip()) and not answer for text, answer in zip(texts, out, strict=True))
        return out


def read_examples(path: Path, shots: int) -> list[tuple[str, str]]:
    """The first ``shots`` lines of a file of source, tab, translation; SdrrlError names the file and the line."""
    pairs: list[tuple[str, str]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as e:
        raise SdrrlError(f"{path}: not UTF-8 ({e})") from None
    for number, line in enumerate(lines, 1):
        if len(pairs) == shots:
            break
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2 or not all(fields):
            raise SdrrlError(f"{path}, line {number}: expected source, one tab, translation")
        pairs.append((fields[0], fields[1]))
    if len(pairs) < shots:
        raise SdrrlError(f"{path}: {len(pairs)} examples, {shots} are asked for (shots)")
    return pairs


def clean(answer: str, text: str, source: str, target: str) -> str:
    """The translation inside an answer: without thoughts, a label, a turn that the model goes on to invent, or added
    quotes.

    Args:
        answer: what the model said; text: what it was to translate; source, target: the languages' English names.
    """
    kept = (answer if without_thoughts(text).blocks else without_thoughts(answer).text).strip()
    label = rf"(?:\*\*)?(?:translation|translated text|{re.escape(target)}(?: translation)?)(?:\*\*)?\s*:(?:\*\*)?\s*"
    preface = rf"(?:sure|certainly|of course|here is|here's|here’s)\b[^\n:]{{0,80}}:[ \t]*(?:\n\s*|(?={label}))"
    for pattern in (preface, label):
        if not re.match(pattern, text, re.IGNORECASE):
            kept = re.sub(rf"\A{pattern}", "", kept, flags=re.IGNORECASE)
    if f"\n{source}:" not in text:
        kept = re.split(rf"\n\s*{re.escape(source)}\s*:", kept, maxsplit=1)[0].strip()
    quoted = _QUOTES.get(kept[:1])
    inside = kept[1:-1]
    if quoted and len(kept) > 1 and kept.endswith(quoted) and not ({kept[0], quoted} & set(inside)):
        kept = kept if text.strip()[:1] in _QUOTES else inside.strip()
    return kept
