"""Every registered engine lists the files it reads: what each of them holds is part of its fingerprint."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.data.engines import base, contents
from sdrrl_nemo.data.engines.base import Engine, fingerprint_of
from tests.tiny import tiny_model
from tests.unit.data.shipped.resources import comet, debian_packages, instructions, muse, opus, sentences, write
from tests.unit.data.shipped.tiny_translator import build
from tests.unit.engines.language_id.test_fasttext import WORDS, write_classifier
from tests.unit.engines.translate.apertium_stand_in import write_pair, write_programs

PAIR = ("eng", "ces")
REGISTRIES = {
    "generator": base.GENERATORS,
    "translator": base.TRANSLATORS,
    "quality": base.QUALITY_ESTIMATORS,
    "llm_judge": base.LLM_JUDGES,
    "language_id": base.LANGUAGE_IDENTIFIERS,
    "dictionary": base.DICTIONARIES,
    "corpus": base.PARALLEL_CORPORA,
}
NO_FILES = {"openai_server", "openai_judge", "use", "cld3"}
"""A server that is not here, and packages whose version is in the engine's identity."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    tiny_model(root / "llama", layers=1)
    build(root / "nllb", steps=1)
    for maker in (comet, instructions, opus):
        maker(root)
    muse(root / "data/muse")
    debian_packages(root / ".cache/debian")
    (root / "lid").mkdir()
    write_classifier(root / "lid/own.bin", WORDS, ["__label__ces", "__label__en", "__label__fr"])
    write(root / "p.tsv", "".join(f"{a}\t{b}\n" for a, b in zip(sentences("eng"), sentences("ces"), strict=True)))
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{a}</seg></tuv><tuv xml:lang="cs"><seg>{b}</seg></tuv></tu>'
        for a, b in zip(sentences("eng"), sentences("ces"), strict=True)
    )
    write(root / "m.tmx", f"<tmx><body>{units}</body></tmx>")
    write(root / "shots/eng-ces.tsv", "Yes\tAno\n")
    for name in ("model.intgemm.alphas.bin", "lex.s2t.bin", "tokenizer.json"):
        write(root / "bergamot" / name, name)
    write_pair(write_programs(root / "apertium"), "eng-ces")
    run = root / "run"
    for name in ("metadata.json", "__0_0.distcp"):
        write(run / "checkpoints/step-000010/weights" / name, "{}")
    write(run / "chat_template.jinja", "{{ messages }}")
    shutil.copytree(root / "data/opus100/cs-en", root / "moses")
    for code in ("cs", "en"):
        shutil.copy(root / f"moses/opus.cs-en-train.{code}", root / f"data/TED2020.cs-en.{code}")
    return root


def options(root: Path) -> dict[str, dict[str, Any]]:
    """Engine -> options that name everything it can read."""
    stem = root / "moses/opus.cs-en-train"
    moses = {"source_path": f"{stem}.en", "target_path": f"{stem}.cs", "source": "eng", "target": "ces"}
    llama = {"model": str(root / "llama")}
    return {
        "hf": llama,
        "ctranslate2": {**llama, "device": "cpu", "cache": str(root / "converted")},
        "nemo_checkpoint": {"run": str(root / "run"), "base": str(root / "llama")},
        "openai_server": {"model": "tiny"},
        "openai_judge": {"model": "tiny"},
        "apertium": {"folder": str(root / "apertium")},
        "bergamot": {"models": {"eng-ces": str(root / "bergamot")}},
        "llm_translate": {
            "generator": "hf",
            "options": llama,
            "shots": 1,
            "examples": str(root / "shots/{source}-{target}.tsv"),
        },
        "nllb_hf": {"model": str(root / "nllb"), "device": "cpu"},
        "nllb_ctranslate2": {"model": str(root / "nllb"), "device": "cpu", "cache": str(root / "converted")},
        "cometkiwi": {
            "model": str(root / "work/models/wmt22-cometkiwi-da"),
            "encoder": str(root / "work/models/infoxlm-large"),
            "python": str(root / ".venv-comet/bin/python"),
            "device": "cuda",
        },
        "xcomet": {
            "model": str(root / "work/models/xcomet-xl"),
            "encoder": str(root / "work/models/infoxlm-large"),
            "python": str(root / ".venv-comet/bin/python"),
            "device": "cuda",
        },
        "metricx": {
            "model": str(root / "work/models/metricx"),
            "tokenizer": str(root / "work/models/mt5"),
            "python": str(root / ".venv-comet/bin/python"),
            "device": "cuda",
        },
        "use": {},
        "cld3": {},
        **{
            name: {"model": str(root / "lid/own.bin")}
            for name in ("fasttext_lid", "glotlid", "openlid_v2", "openlid_v3")
        },
        "muse": {"folder": str(root / "data/muse")},
        "freedict": {"cache": str(root / ".cache/debian")},
        "gnome_help": {"cache": str(root / ".cache/debian")},
        "moses": moses,
        "opus": {"folder": str(root / "data"), "corpus": "TED2020"},
        "opus100": {"folder": str(root / "data/opus100")},
        "tmx": {"path": str(root / "m.tmx")},
        "tsv": {"path": str(root / "p.tsv"), "source": "eng", "target": "ces"},
    }


ENGINES = [(role, name) for role, registry in REGISTRIES.items() for name in registry if not name.startswith("tiny")]


def files_of(engine: Engine) -> list[Path]:
    return [file for path in engine.files(*PAIR) for file in contents.files_below(path)]


@pytest.mark.parametrize(("role", "name"), ENGINES)
def test_an_edit_of_any_file_changes_the_fingerprint(role: str, name: str, world: Path) -> None:
    def made() -> Engine:
        return REGISTRIES[role].create(name, **options(world)[name])  # type: ignore[no-any-return]

    files = files_of(made())
    assert bool(files) == (name not in NO_FILES)
    before = fingerprint_of(made(), *PAIR)
    assert fingerprint_of(made(), *PAIR) == before
    for file in files:
        whole = file.read_bytes()
        # A tokenizer's own files must stay readable: engines may load them for their identity.
        file.write_bytes(whole + (b"\n" if file.suffix in (".json", ".jinja") else b"\0"))
        assert fingerprint_of(made(), *PAIR) != before, file
        file.write_bytes(whole)
    assert fingerprint_of(made(), *PAIR) == before


@contextmanager
def opened(root: Path) -> Iterator[set[Path]]:
    """The files below ``root`` that Python code opens for reading, as the interpreter's audit hooks tell."""
    found: set[Path] = set()
    watching = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(arguments[0]))
            if not path.is_dir() and path.is_relative_to(root) and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                found.add(path)

    sys.addaudithook(hook)
    try:
        yield found
    finally:
        watching.clear()


USES: dict[str, Callable[[Any], object]] = {
    "dictionary": lambda engine: engine.entries(*PAIR),
    "corpus": lambda engine: list(engine.pairs(*PAIR)),
    "translator": lambda engine: engine.translate(["the cat sleeps here"], *PAIR),
    "generator": lambda engine: engine.generate(["Why?"]),
    "language_id": lambda engine: engine.identify(["hello"]),
    "quality": lambda engine: engine.score(["a"], ["b"]),
}
NOT_RUN = {"openai_server", "openai_judge", "nemo_checkpoint", "bergamot", "use", "cld3"}
"""No server, no real checkpoint, no real model in the folder; nothing to read."""


@pytest.mark.parametrize(("role", "name"), [e for e in ENGINES if e[1] not in NOT_RUN])
def test_what_an_engine_opens_is_what_it_lists(role: str, name: str, world: Path) -> None:
    """Independent of what it says: what it opens while it works. Weights are mapped by native code, unseen here."""
    engine = REGISTRIES[role].create(name, **options(world)[name])
    with opened(world) as found:
        USES[role](engine)
    listed = set(files_of(engine))
    made_here = {p for p in found if "converted" in p.parts or ".venv-comet" in p.parts or "doc" in p.parts}
    assert found - made_here <= listed
    if role in ("dictionary", "corpus"):
        assert found & listed == listed


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contents, "LARGE", 10)
    monkeypatch.setattr(contents, "SETTLED_S", -1.0)
    read: list[Path] = []
    real = contents.sha256_file
    monkeypatch.setattr(contents, "sha256_file", lambda path: read.append(path) or real(path))
    path = write(tmp_path / "model.bin", "weights of a large model")
    first = contents.sha256_of(path)
    monkeypatch.setattr(contents, "_known", {})  # the next process
    assert contents.sha256_of(path) == first == real(path)
    assert read == [path]
    os.utime(path, (1, 1))  # the times of an edit can be set back, that of its inode cannot
    write(path, "weights of a larger model")
    assert contents.sha256_of(path) == real(path) != first
    for broken in ("{}", "[]", "no JSON"):
        monkeypatch.setattr(contents, "_known", {})
        (note,) = (tmp_path / contents.CACHE).iterdir()
        note.write_text(broken, encoding="utf-8")
        assert contents.sha256_of(path) == real(path)
    assert contents.sha256_of(write(tmp_path / "s", "small")) == real(tmp_path / "s")
    assert len(list((tmp_path / contents.CACHE).iterdir())) == 1
