"""The chat template that a run renders conversations with: whose it is, on which date, with which options.

What a published template does at run time (print today's date, take ``enable_thinking`` from the caller, leave the
assistant's header to the caller) is written into the template itself, so that one text says how generation, training,
evaluation and the exported folder render, and its hash is part of the tokenizer's fingerprint. A template that does
none of this stays as it is, to the byte.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system != false %}"
    "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}"
    "{% else %}{% set content = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""Llama-2-Chat's, as its folder has it."""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ALPACA = (
    "{{ bos_token or '' }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
    "{{ messages[0]['content'] + '\\n\\n' }}{% else %}{% set turns = messages %}"
    "{{ 'Below is an instruction that describes a task. '"
    " + 'Write a response that appropriately completes the request.\\n\\n' }}"
    "{% endif %}{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + m['content'] + '\\n\\n' }}"
    "{% else %}{{ '### Response:\\n' + m['content'] + eos_token + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
"""Alpaca's prompt as LLaMA-Factory renders it, whose settings the paper follows."""
NAMED: Mapping[str, str] = {"llama2": LLAMA2, "chatml": CHATML, "alpaca": ALPACA}

DIRECTIVES = "aAbBdejmyYHIMSpUwZ"
"""What a format of strftime is translated for; ``%-d`` and its like too."""
_OWN_DATE = re.compile(r"\{%-?\s*macro\s+strftime_now\b")


@dataclass
class TemplateConfig:
    """How conversations are rendered (section ``templates``)."""

    chat_template: str = ""
    """``''``: the model folder's own; ``llama2``, ``chatml``, ``alpaca``; or a file with a Jinja template. A model
    without one (a base model) needs it."""
    date: str = "2024-07-26"
    """Date (YYYY-MM-DD) that templates with ``strftime_now`` print in place of today's, so that a run does not depend
    on the day; the default is the one that Llama 3's template falls back to."""
    options: dict[str, Any] = field(default_factory=dict)
    """Variables of the template, such as {enable_thinking: false}."""


def fixed(own: str | Mapping[str, str] | None, config: TemplateConfig, where: str) -> str:
    """The template of ``config``, or the tokenizer's ``own``, with date and options written in; '' where there is none.

    SdrrlError names the key that is wrong. Doing it twice changes nothing.
    """
    text = _chosen(own, config, where)
    if not text:
        return ""
    head, dated = _options(config.options), _dated(config.date)
    if "strftime_now" in text and not _OWN_DATE.search(text):
        head += dated
    # The line break ends the head's line and is removed by trim_blocks, so the template's own first line is untouched.
    return text if text.startswith(head) else head + text


def _chosen(own: str | Mapping[str, str] | None, config: TemplateConfig, where: str) -> str:
    name = config.chat_template
    if not name:
        if isinstance(own, Mapping):  # several by name, one for tools, one for documents
            if "default" not in own:
                raise SdrrlError(f"{where}: none of its chat templates ({', '.join(own)}) is the default one")
            return own["default"]
        return own or ""
    if name in NAMED:
        return NAMED[name]
    path = Path(name)
    if not path.is_file():
        raise SdrrlError(
            f"templates.chat_template: '{name}' is neither a file nor one of {', '.join(NAMED)}{suggest(name, NAMED)}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise SdrrlError(f"{path}: the chat template cannot be read ({e}); write it as UTF-8") from None


def _options(options: Mapping[str, Any]) -> str:
    """Jinja that gives the options their values where the caller gives none."""
    out = ""
    for name, value in sorted(options.items()):
        if not name.isidentifier():
            raise SdrrlError(f"templates.options: '{name}' is no name that a template can use")
        out += f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}\n"
    return out


def _literal(value: Any) -> str:
    """A value as Jinja writes it: JSON but for true, false and none, which both know, and null."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _dated(date: str) -> str:
    """A macro under the name of the function that gives today's date; a template's own names come before globals."""
    try:
        day = datetime.datetime.fromisoformat(str(date))
    except ValueError:
        raise SdrrlError(f"templates.date: '{date}' is no date; write it as 2024-07-26") from None
    english = {"a": _DAYS[day.weekday()][:3], "A": _DAYS[day.weekday()], "b": _MONTHS[day.month - 1][:3]}
    english["B"] = _MONTHS[day.month - 1]  # whatever the locale
    parts = "".join(
        f"|replace('%{sign}{d}', {_literal(value.lstrip('0') or '0' if sign else value)})"
        for d in DIRECTIVES
        for value in [english.get(d) or day.strftime(f"%{d}")]
        for sign in ("-", "")
        if not (sign and d in english)
    )
    return f"{{% macro strftime_now(format) %}}{{{{ format{parts} }}}}{{% endmacro %}}\n"


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def with_header(template: str, header: str) -> str:
    """The template with an assistant's ``header`` at its end when an answer is asked for."""
    body = template.removesuffix("\n")  # Jinja drops one line break at a template's end, and it no longer ends there
    return f"{body}{{% if add_generation_prompt %}}{{{{ {_literal(header)} }}}}{{% endif %}}"


Render = Callable[[str, Sequence[Mapping[str, str]], bool], str]
"""(template, conversation, add_generation_prompt) -> text"""


def missing_headers(template: str, render: Render) -> list[str]:
    """What may have to stand before an answer and is not in the prompt: headers to try in this order, '' for none.

    A template that looks at ``add_generation_prompt`` writes its own. Of the others some have no header (Mistral), and
    some write it with the answer alone, so that a prompt would end before it.
    """
    question = [{"role": "user", "content": "q"}]
    prompt, closed = render(template, question, True), render(template, question, False)
    if prompt != closed:
        return [""]
    whole = render(template, [*question, {"role": "assistant", "content": MARK}], False)
    before, found, _ = whole.partition(MARK)
    header = before.removeprefix(prompt) if before.startswith(prompt) else ""
    if not found or not header.strip():
        return [""]
    # A space before the answer belongs to the answer's first token.
    return list(dict.fromkeys([header.rstrip(" "), header]))


MARK = "xq7zanswerq7zx"
"""Stands for an answer where its place is looked for; nothing that a template would change or write itself."""
