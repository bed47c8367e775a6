"""An edited input remakes exactly the stages that depend on it, in a finished folder too."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.validation import import_plugins
from tests.unit.data.shipped.resources import muse, opus, write
from tests.unit.data.tiny_run import tiny_config
from tools.preprocess_sdrrl import preprocess

TARGETS = ("por", "ces")
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
LAST = {"order", "tokenize"}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of two pairs with files of every kind that can be edited."""
    root = tmp_path_factory.mktemp("edited")
    muse(root / "data/muse")
    opus(root)
    write(root / "chat.jinja", TEMPLATE)
    path = tiny_config(root, rows=40)
    return [
        str(path),
        f"target_languages=[{','.join(TARGETS)}]",
        "language_id.min_letters=10000",
        "code_switch.dictionary.name=muse",
        f"code_switch.dictionary.options.folder={root / 'data/muse'}",
        "parallel.engine.name=opus100",
        f"parallel.engine.options.folder={root / 'data/opus100'}",
        "parallel.train_pairs=10",
        "parallel.held_out_pairs=4",
        f"templates.chat_template={root / 'chat.jinja'}",
    ]


def run(overrides: list[str]) -> dict[str, set[str]]:
    """Stage -> its directories after a run."""
    config = load_config(PreprocessConfig, overrides[0], overrides[1:])
    import_plugins(config.plugins)
    with contextlib.redirect_stdout(io.StringIO()):
        preprocess(config, Path(config.output_dir))
    found: dict[str, set[str]] = {}
    for path in (Path(config.output_dir) / "stages").iterdir():
        name, _, mark = path.name.rpartition("-")
        found.setdefault(name, set()).add(mark)
    return found


def edited(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


def test_exactly_what_depends_on_it(overrides: list[str]) -> None:
    root = Path(overrides[0]).parent
    before = run(overrides)

    def remade(path: Path, change: Callable[[str], str]) -> set[str]:
        """The stages that have one more directory after an edit."""
        nonlocal before
        edited(path, change)
        after = run(overrides)
        assert all(marks <= after[name] for name, marks in before.items())
        new = {name for name, marks in after.items() if marks != before[name]}
        before = after
        return new

    assert run(overrides) == before
    # One line more in one pair's dictionary: that pair's questions are switched anew.
    assert remade(root / "data/muse/en-cs.txt", lambda t: t + "question otázka\n") == {"code-switch.eng-ces", *LAST}
    # The file that the other pair reads backwards for nothing, and one that nobody reads.
    assert remade(root / "data/muse/en-da.txt", lambda t: t + "question spørgsmål\n") == set()
    corpus = root / "data/opus100/cs-en/opus.cs-en-train.cs"
    assert remade(corpus, lambda t: t.replace("kočka", "kocour") if "kočka" in t else "x" + t) == {
        "parallel.eng-ces",
        "templates.eng-ces",
        *LAST,
    }
    # The template says how samples are rendered; the tiny generator does not read it.
    assert remade(root / "chat.jinja", lambda t: "Chat:\n" + t) == {"tokenize"}
    everything = {name for name in before if not name.startswith(("parallel", "templates"))}
    assert remade(root / "instructions.jsonl", lambda t: t.replace("topic 7?", "topic seven?")) == everything


def test_a_finished_folder_is_recognised_and_not_checked_again(
    overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(PreprocessConfig, overrides[0], overrides[1:])
    import_plugins(config.plugins)
    preprocess(config, Path(config.output_dir))
    preprocess(config, Path(config.output_dir))
    out = capsys.readouterr().out
    assert "Nothing to do" in out
    assert "Preflight" not in out
    edited(Path(overrides[0]).parent / "data/muse/en-pt.txt", lambda t: t + "number número\n")
    preprocess(config, Path(config.output_dir))
    out = capsys.readouterr().out
    assert "Nothing to do" not in out
    assert "Preflight: " in out
    assert "note: dictionary muse: 1 entries of en-pt.txt cannot be used" in out
