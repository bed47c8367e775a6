"""sdrrl_nemo.common: every error is one sentence with its place, files are whole or absent, seeds have names."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import MISSING

from sdrrl_nemo.common import cli, fileio, provenance, quiet
from sdrrl_nemo.common.config import load_config, read_key, to_yaml
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.common.seeding import derive_seed, named_generator, named_random

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # no lone surrogates: they are not UTF-8
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1f"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@dataclass
class Inner:
    rate: float = 0.5
    name: str = "a"


@dataclass
class Outer:
    path: str = MISSING
    steps: int = 10
    inner: Inner = field(default_factory=Inner)


def test_suggest_names_the_nearest_or_lists_all() -> None:
    assert suggest("bergamt", ["bergamot", "nllb"]) == "; did you mean 'bergamot'?"
    assert suggest("zzz", ["nllb", "bergamot"]) == "; known: bergamot, nllb"
    assert suggest("x", []) == ""


# --- configuration -------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_layers_apply_in_order_parent_file_then_file_then_overrides(tmp_path: Path) -> None:
    write(tmp_path / "parent.yaml", "path: p\nsteps: 1\ninner: {rate: 0.1, name: parent}\n")
    child = write(tmp_path / "child.yaml", "base: parent.yaml\nsteps: 2\ninner: {rate: 0.2}\n")
    config = load_config(Outer, child, ["inner.rate=0.3"])
    assert config == Outer(path="p", steps=2, inner=Inner(rate=0.3, name="parent"))
    again = write(tmp_path / "again.yaml", to_yaml(config))
    assert load_config(Outer, again) == config


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("path: x\nstep: 3\n", [], "unknown key 'step'; did you mean 'steps'?"),
        ("path: x\ninner: {rat: 3}\n", [], "unknown key 'inner.rat'; did you mean 'inner.rate'?"),
        ("path: x\n", ["inner.rrate=1"], "unknown key 'inner.rrate'; did you mean 'inner.rate'?"),
        ("path: x\n", ["steps"], "override 'steps' is not of the form key=value"),
        ("path: x\nsteps: many\n", [], "key 'steps'"),
        ("steps: 3\n", [], "missing required key 'path'"),
        ("- a\n", [], "expected a mapping"),
        ("a: [\n", [], "not valid YAML"),
        ("path: x\nsteps: 1\nsteps: 2\n", [], "line 3: the key 'steps' stands in line 2 already"),
        ("path: x\ninner: {name: a, 'name': b}\n", [], "line 2: the key 'name' stands in line 2 already"),
        ('base: "\\ud800"\n', [], r"'base': '\ud800' is no text"),
        ('path: "a\\0b"\ninner: {name: x}\n', [], r"'path': 'a\x00b' is no text"),
        ('path: x\ninner: {name: "\\udc80"}\n', [], r"'inner.name': '\udc80' is no text"),
        ("path: x\n", ["path=\udcff"], r"override: 'path=\udcff' is no text"),
    ],
)
def test_bad_configuration_is_one_sentence(tmp_path: Path, text: str, overrides: list[str], said: str) -> None:
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(SdrrlError) as caught:
        load_config(Outer, path, overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_beside_a_merged_mapping_is_no_second_one(tmp_path: Path) -> None:
    text = "path: x\ninner: {<<: [{name: a}, {name: b}], name: c}\n"
    assert load_config(Outer, write(tmp_path / "c.yaml", text)).inner.name == "c"


def test_missing_configuration_and_missing_parent_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"none\.yaml: no such configuration file"):
        load_config(Outer, tmp_path / "none.yaml")
    with pytest.raises(SdrrlError, match=r"gone\.yaml: no such configuration file"):
        load_config(Outer, write(tmp_path / "c.yaml", "base: gone.yaml\n"))


# --- files ---------------------------------------------------------------------------------------------------------


def test_atomic_write_keeps_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "f.txt", "old")

    def fail() -> None:
        with fileio.atomic_write(path) as f:
            f.write("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "f.txt", "old")
    code = (
        "import os, signal, sys\n"
        "from sdrrl_nemo.common.fileio import atomic_write\n"
        "with atomic_write(sys.argv[1]) as f:\n"
        "    f.write('half'); f.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(TEXT, JSON), max_size=5))
def test_jsonl_round_trip_and_stable_bytes(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "rows.jsonl"
    assert fileio.write_jsonl(path, rows) == len(rows)
    assert [row for _, row in fileio.read_jsonl(path)] == rows
    first = fileio.sha256_file(path)
    fileio.write_jsonl(path, [dict(reversed(list(row.items()))) for row in rows])
    assert fileio.sha256_file(path) == first


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": 1}\n\n{"a": \n', r"rows\.jsonl, line 3: not valid JSON"),
        (b'{"a": 1}\n[1]\n', r"rows\.jsonl, line 2: expected a JSON object, found list"),
        (b'{"a": "\xff"}\n', r"rows\.jsonl, line 1: not valid JSON"),
    ],
)
def test_broken_json_line_is_named(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    with pytest.raises(SdrrlError, match=said):
        list(fileio.read_jsonl(path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"x\.jsonl: no such file"):
        list(fileio.read_jsonl(tmp_path / "x.jsonl"))
    with pytest.raises(SdrrlError, match=r"x\.json: no such file"):
        fileio.read_json(tmp_path / "x.json")
    with pytest.raises(SdrrlError, match=r"y\.json: not valid JSON"):
        fileio.read_json(write(tmp_path / "y.json", "{"))


def test_write_json_reads_back(tmp_path: Path) -> None:
    fileio.write_json(tmp_path / "deep" / "x.json", {"b": "ção", "a": 1})
    assert fileio.read_json(tmp_path / "deep" / "x.json") == {"a": 1, "b": "ção"}
    assert "ção" in (tmp_path / "deep" / "x.json").read_text(encoding="utf-8")


@given(JSON, JSON)
def test_content_key_depends_on_the_value_alone(a: object, b: object) -> None:
    same = json.loads(fileio.canonical_json(a))
    assert fileio.content_key(a) == fileio.content_key(same)
    assert (fileio.content_key(a) == fileio.content_key(b)) == (fileio.canonical_json(a) == fileio.canonical_json(b))
    assert fileio.content_key(a, b) != fileio.content_key([a, b])


# --- seeds ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.lists(NAME, min_size=1, max_size=3))
def test_seeds_depend_on_root_and_name_alone(root: int, names: list[str]) -> None:
    seed = derive_seed(root, *names)
    assert 0 <= seed < 2**63
    assert seed == derive_seed(root, *names)
    assert seed != derive_seed(root + 1, *names)
    assert seed != derive_seed(root, *names, "more")
    assert derive_seed(root, "ab", "c") != derive_seed(root, "a", "bc")


def test_named_generators_do_not_depend_on_the_order_of_calls() -> None:
    first = [named_random(1, "x").random(), float(named_generator(1, "y").random())]
    second = [float(named_generator(1, "y").random()), named_random(1, "x").random()]
    assert first == second[::-1]


def test_seeds_stay_what_they_are() -> None:
    """Data made by an earlier version must be reproducible: these values may not change."""
    assert derive_seed(1234, "synth", "k") == 7547681289038242646
    assert named_random(1234, "synth").randrange(10**6) == 552710
    assert named_generator(1234, "order").permutation(6).tolist() == [0, 5, 4, 2, 1, 3]


# --- registry ------------------------------------------------------------------------------------------------------


def test_registry_builds_by_name_and_explains_wrong_names_and_options() -> None:
    registry: Registry[str] = Registry("translator")

    @registry.register("bergamot")
    def bergamot(beam: int = 1) -> str:
        return f"bergamot {beam}"

    assert registry.create("bergamot", beam=4) == "bergamot 4"
    assert list(registry) == ["bergamot"]
    with pytest.raises(SdrrlError, match="unknown translator backend 'bergamott'; did you mean 'bergamot'"):
        registry.create("bergamott")
    with pytest.raises(SdrrlError, match="translator backend 'bergamot' has no option 'baem'; did you mean 'beam'"):
        registry.create("bergamot", baem=4)
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("bergamot")(bergamot)


# --- entry points ----------------------------------------------------------------------------------------------------


def test_one_key_of_a_file_is_read_without_its_schema(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text("model: {hf_path: a/b, rows: 3}\n")
    (tmp_path / "run.yaml").write_text("base: parent.yaml\nmodel: {hf_path: c/d}\n")
    assert read_key(tmp_path / "run.yaml", "model.hf_path") == "c/d"
    assert read_key(tmp_path / "run.yaml", "model.rows") == 3
    with pytest.raises(SdrrlError, match=r"run\.yaml: the key 'model\.tp' is missing"):
        read_key(tmp_path / "run.yaml", "model.tp")


def test_config_parser_takes_overrides() -> None:
    args = cli.config_parser("x").parse_args(["--config", "a.yaml", "b.c=1", "d=2"])
    assert (args.config, args.overrides) == ("a.yaml", ["b.c=1", "d=2"])


def test_quiet_keeps_errors_and_our_own_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDRRL_VERBOSE", raising=False)
    logger = logging.getLogger("nemo_logger")
    before = {name: logging.getLogger(name).level for name in quiet.LOGGERS}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quiet.quiet_third_parties()
            quiet.quiet_third_parties()
            warnings.warn("Transformer Engine and Apex are not installed.", UserWarning, stacklevel=1)
            with pytest.raises(UserWarning, match="ours"):
                warnings.warn("ours", UserWarning, stacklevel=1)
        assert logger.filters.count(quiet.errors_only) == 1
        record = logging.LogRecord("nemo_logger", logging.WARNING, "f", 1, "m", None, None)
        assert not logger.filter(record)
        record.levelno = logging.ERROR
        assert logger.filter(record)
        assert not logging.getLogger("megatron.core.utils").isEnabledFor(logging.WARNING)
        assert logging.getLogger("sdrrl_nemo").isEnabledFor(logging.WARNING)
    finally:
        for name in quiet.FILTERED:
            logging.getLogger(name).removeFilter(quiet.errors_only)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def test_verbose_silences_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDRRL_VERBOSE", "1")
    quiet.quiet_third_parties()
    assert quiet.errors_only not in logging.getLogger("nemo_logger").filters


def test_progress_yields_every_item_and_stays_short_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(500), "work", total=500)) == list(range(500))
    assert capsys.readouterr().err.count("work") <= 3


def test_provenance_says_what_made_a_result() -> None:
    facts = provenance.provenance()
    assert facts["versions"]["torch"] != "absent"
    assert facts["versions"]["python"] == platform.python_version()
    assert set(provenance.PACKAGES) <= set(facts["versions"])
    assert len(facts["git_commit"].removesuffix("+dirty")) in (len("unknown"), 40)
