"""Code must come back as it was, but for what people read in it."""

from __future__ import annotations

import re

import pytest

from sdrrl_nemo.data.filters import Code, TextPair
from sdrrl_nemo.data.filters.kept_code import code_parts

BLOCK = 'Say it:\n\n```python\nname = "Ana"  # who\nprint(name)\n```\n'


def reason(source: str, target: str, **options: int) -> str | None:
    return Code(**options).reject(TextPair(source, target, "eng", "por"))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (BLOCK, BLOCK.replace("Say it", "Diga")),
        (BLOCK, BLOCK.replace("Ana", "João").replace("# who", "# quem é")),  # strings and comments may be translated
        (BLOCK, BLOCK.replace("\nprint", "\n\n  print")),  # lines may move
        ("Run `ls -la` twice: `ls -la`.", "Execute `ls -la` duas vezes."),
        ("Click `Save as`.", "Clique em `Salvar como`."),  # words in backticks are words
        ("```\nThe night is still,\nthe wind is low.\n```", "```\nA noite é calma,\no vento é brando.\n```"),
        ("`x = 'it'` sets x.", "`x = 'isso'` define x."),
        ("SQL: `SELECT a FROM t WHERE b = 'Lisbon';`", "SQL: `SELECT a FROM t WHERE b = 'Lisboa';`"),
        ("```css\nbody { color: #333; } /* grey */\n```", "```css\nbody { color: #333; } /* cinza */\n```"),
        ("No code.", "Sem código: `x = 1`."),  # code made up is not its matter
        ("~~~\nx = 1\n~~~", "```\nx = 1\n```"),  # another fence around the same code
    ],
)
def test_kept_code_passes(source: str, target: str) -> None:
    assert reason(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (BLOCK, "Diga:\n", "1 pieces of code lost"),
        (BLOCK, BLOCK.replace("print", "imprimir"), "lost or changed"),
        (BLOCK, BLOCK.replace("print(name)", ""), "lost or changed"),
        (BLOCK, "Diga:\n\n```python\n```\n", "lost or changed"),
        ("Run `ls -la ~/Documents`.", "Execute `ls -la ~/Documentos`.", r"ls -la ~/Documents"),
        ("`SELECT a FROM t;`", "`SELECIONE a DE t;`", "SELECT a FROM t;"),
        ("`git commit -m \"x\"` saves.", "Salva.", "git commit"),
        ("```css\nbody { color: #333; }\n```", "```css\nbody { color: #555; }\n```", "#333"),
        ("Use `a_b` and `c()`.", "Use `a_b`.", r"1 pieces of code lost or changed \['c\(\)'\]"),
    ],
)  # fmt: skip
def test_lost_and_changed_code_is_rejected(source: str, target: str, said: str) -> None:
    assert re.search(said, str(reason(source, target)))


def test_room_for_some() -> None:
    assert reason("Use `a_b` and `c()`.", "Use.", max_missing=2) is None
    assert reason("Use `a_b` and `c()`.", "Use.", max_missing=1) is not None


def test_parts_are_told_apart() -> None:
    assert set(code_parts(BLOCK + "and `y += 1`, `Save`")) == {"name=print(name)", "y+=1"}
    assert code_parts("an ` unclosed = tick") == {}
