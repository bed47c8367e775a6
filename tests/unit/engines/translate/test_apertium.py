"""The engine on stand-in programs with every untidiness that was met or is to be feared, and on Apertium itself."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import fingerprint_of
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.engines.translate.apertium import ApertiumTranslator, engine, installed, stream
from tests.launch import ROOT
from tests.unit.engines.translate.apertium_stand_in import write_pair, write_programs

PAIR = ("eng", "spa")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(write_pair(write_programs(tmp_path_factory.mktemp("root"))), "spa-eng", {"gato": "cat"})


@pytest.fixture
def translator(root: Path) -> ApertiumTranslator:
    return ApertiumTranslator(str(root), timeout_s=20.0)


def test_both_directions_and_unknown_words_without_marks(translator: ApertiumTranslator) -> None:
    assert translator.translate(["The cat sleeps. Good xyzzy!"], *PAIR) == ["el gato duerme. buena xyzzy!"]
    assert translator.translate(["Gato gris"], "spa", "eng") == ["cat gris"]


# The stand-in ends at any character that the stream format reserves and that stands there without a backslash.
@pytest.mark.parametrize(
    "text",
    [
        r"[ ] ^ $ @ \ / { } < > ~ \[ \\ [[x]] ^x$ [<STREAMCMD:SETVAR:x>] \,",
        "a\\",
        "see [7] and .[0] or [0]",
        "* + # ~word | ? & ; `",
        "日本語 и ก็ 😀 e\u0301 \u200b\u00ad \x01 \x1b[0m",
    ],
)
def test_characters_that_the_programs_take_as_their_own(text: str, translator: ApertiumTranslator) -> None:
    assert translator.translate([text], *PAIR) == [text]
    assert stream.decoded(stream.encoded(3, text)) == {3: " ".join(text.split(" "))}
    assert translator.translate([f"the cat {text}"], *PAIR) == [f"el gato {text}"]


def test_lines_code_and_addresses_survive(translator: ApertiumTranslator) -> None:
    text = (
        "# The cat\n\n1. Good water. Good cat!\n   - the `cat -A` sleeps\r\n\n```sh\nthe cat\n```\n"
        "See https://the.cat/water?a=1, the cat. \\(cat^2\\)\n"
    )
    assert translator.translate([text, "", " \n\t", "12 + 3 = 15"], *PAIR) == [
        "# el gato\n\n1. buena agua. buena gato!\n   - el `cat -A` duerme\r\n\n```sh\nthe cat\n```\n"
        "See https://the.cat/water?a=1, el gato. \\(cat^2\\)\n",
        *("", " \n\t", "12 + 3 = 15"),
    ]
    segmented = SegmentedTranslator(translator)
    assert segmented.translate(["The `cat` sleeps.\n\n- good water\n"], *PAIR) == ["el `cat` duerme.\n\n- buena agua\n"]


@pytest.mark.parametrize("word", ["crash", "forget"])
def test_one_text_that_breaks_the_programs_costs_no_other(word: str, translator: ApertiumTranslator) -> None:
    texts = [f"the cat {n}" for n in range(5)]
    out = translator.translate([*texts[:2], f"good {word} water. The cat.", *texts[2:]], *PAIR)
    assert out == [*(f"el gato {n}" for n in range(2)), "", *(f"el gato {n}" for n in range(2, 5))]
    assert translator.incomplete == 1


def test_blank_parts_that_a_program_adds_move_nothing(translator: ApertiumTranslator) -> None:
    assert translator.translate(["the cat", "good blank water", "the dog"], *PAIR) == [
        "el gato",
        "buena agua",
        "el perro",
    ]


def test_a_number_that_comes_twice_is_not_believed() -> None:
    assert stream.decoded(b"a.[0]\0b.[1]\0c.[0]\0\0\0") == {1: "b"}
    assert stream.decoded(b"\0\n\0a.[4]") == {4: "a"}
    assert stream.decoded("x \\[2\\]\0ñ [~] . [3]\n".encode()) == {3: "ñ ~"}


def test_a_program_that_hangs_is_stopped(root: Path) -> None:
    made = installed.pipeline(*PAIR, str(root), "")
    ran = stream.run(made.commands, made.libraries, {7: "the dog", 8: "hang the cat"}, timeout_s=4.0)
    assert ran == ({7: "el perro"}, "not done within 4 s")


def test_long_texts_and_many(translator: ApertiumTranslator, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "the cat " * 10_000 + "sleeps"
    assert translator.translate([long], *PAIR) == ["el gato " * 10_000 + "duerme"]
    many = [f"the cat {n}" for n in range(50)]
    whole = translator.translate(many, *PAIR)
    monkeypatch.setattr(engine, "TEXTS", 20)
    monkeypatch.setattr(engine, "CHARACTERS", 100)
    assert translator.translate(many[::-1], *PAIR) == whole[::-1] == [f"el gato {n}" for n in range(50)][::-1]


def test_lone_surrogates_and_nul_do_not_end_the_stream(translator: ApertiumTranslator) -> None:
    assert translator.translate(["the\0cat \ud83d sleeps", "the dog"], *PAIR) == ["el gato duerme", "el perro"]


def test_every_file_counts_and_pickling_keeps_the_options(root: Path, translator: ApertiumTranslator) -> None:
    names = {path.name for path in translator.files(*PAIR)}
    assert names == {
        *("eng-spa.mode", "eng-spa.automorf.bin", "eng-spa.prob", "eng-spa.autogen.bin"),
        *("lt-proc", "apertium-tagger", "liblttoolbox.so.3.0.0"),
    }
    copy = pickle.loads(pickle.dumps(translator))
    assert fingerprint_of(copy, *PAIR) == fingerprint_of(translator, *PAIR)
    assert fingerprint_of(copy, "spa", "eng") != fingerprint_of(translator, *PAIR)
    copy.check(*PAIR)


def broken(root: Path, tmp_path: Path, file: str, text: str | None) -> ApertiumTranslator:
    """With one file of the stand-in replaced, or gone."""
    shutil.copytree(root, tmp_path / "root")
    path = tmp_path / "root" / file
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    return ApertiumTranslator(str(tmp_path / "root"), timeout_s=5.0)


MODE = "usr/share/apertium/modes/eng-spa.mode"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (MODE, None, "there is no usr/share/apertium/modes/eng-spa.mode in .*; correct 'folder'"),
        (MODE, "lt-proc 'x", "eng-spa.mode: not a readable mode file"),
        (MODE, "lt-proc x | | lt-proc y", "a program is missing before or after"),
        (MODE, "lt-proc x; rm -r y", "'x;' is more than a program's option"),
        (MODE, "lt-proc `id`", "is more than a program's option"),
        (MODE, "$(id) x", "is no program's name"),
        (MODE, "../lt-proc x", "is no program's name"),
        (MODE, "cg-proc x", "needs the program 'cg-proc', which is not in .*usr/bin"),
        (MODE, "lt-proc /usr/share/none.bin", "names /usr/share/none.bin, which is missing"),
        ("usr/bin/lt-proc", None, "needs the program 'lt-proc'"),
        ("usr/bin/lt-proc", "#!/no/such/interpreter", "lt-proc cannot be started"),
        (
            "usr/bin/apertium-tagger",
            "#!/bin/sh\necho 'error while loading shared libraries: libicuuc.so.72' >&2\nexit 127\n",
            r"translate nothing \(apertium-tagger ended with exit status 127: error while .* libicuuc.so.72\); install",
        ),
        ("usr/bin/apertium-tagger", "#!/bin/sh\ncat >/dev/null\n", "translate nothing .they gave nothing back.; inst"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    file: str, text: str | None, said: str, root: Path, tmp_path: Path
) -> None:
    found = broken(root, tmp_path, file, text)
    with pytest.raises(SdrrlError, match=said) as e:
        found.check(*PAIR)
    assert "\n" not in str(e.value)
    with pytest.raises(SdrrlError, match=said):
        found.translate(["the cat"], *PAIR)


def test_options_and_pairs_that_are_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match="timeout_s is 0; give more than 0 seconds"):
        ApertiumTranslator(timeout_s=0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SdrrlError, match=r"does not serve eng->jpn: .*known: eng-spa.*option 'folder'"):
        ApertiumTranslator(cache=str(tmp_path)).check("eng", "jpn")
    # Neither installed, nor apt-get on this machine to fetch it.
    with pytest.raises(SdrrlError, match=r"no Apertium for the pair, and .*apt-get.*apt-get install apertium-eng-spa"):
        ApertiumTranslator(cache=str(tmp_path)).check(*PAIR)


def test_the_systems_own_is_taken_where_it_has_the_pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    """As installed under /usr/local, its pairs with codes of two letters."""
    usr = tmp_path / "usr"
    shutil.copytree(root / "usr/bin", usr / "bin")
    (usr / "bin/apertium").symlink_to("lt-proc")
    mode = (root / MODE).read_text(encoding="utf-8").replace("'/usr", f"'{root}/usr")
    modes = usr / "share/apertium/modes"
    modes.mkdir(parents=True)
    (modes / "en-es.mode").write_text(mode, encoding="utf-8")
    monkeypatch.setenv("PATH", str(usr / "bin"))
    own = ApertiumTranslator(cache=str(tmp_path / "none"))
    assert own.translate(["the cat"], *PAIR) == ["el gato"]
    assert modes / "en-es.mode" in list(own.files(*PAIR))
    monkeypatch.setenv("APERTIUM_DATADIR", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(installed, "package_root", lambda name, version, probe, cache: root)
    assert ApertiumTranslator().translate(["the dog"], *PAIR) == ["el perro"]


CACHE = ROOT / ".cache/debian"
HERE = (CACHE / "apertium-eng-spa-0.8.1-2").is_dir() or shutil.which("apertium") is not None
TEXTS = ["The cat sleeps on the red sofa.", "Why do camels have humps?", "I pay $5 [in cash] for ~2 kg/day.", "Yes."]


@pytest.mark.skipif(not HERE, reason="apt-get install apertium-eng-spa")
def test_apertium_itself() -> None:
    real = ApertiumTranslator(cache=str(CACHE))
    real.check(*PAIR)
    out = real.translate(TEXTS, *PAIR)
    assert [real.translate([text], *PAIR)[0] for text in TEXTS[1:3]] == out[1:3]
    assert out[3] == "Sí." and "sofá rojo" in out[0] and "camellos" in out[1]
    assert all(part in out[2] for part in ("$5", "[", "]", "~2", "/"))
    assert real.translate(["El gato duerme en el sofá."], "spa", "eng") == ["The cat sleeps in the sofa."]
    if shutil.which("apertium"):  # independent: the program that users call
        for text, ours in zip(TEXTS, out, strict=True):
            said = subprocess.run(["apertium", "-u", "eng-spa"], input=text, capture_output=True, text=True, check=True)
            assert " ".join(said.stdout.split()) == ours
