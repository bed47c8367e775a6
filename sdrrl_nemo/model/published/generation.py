"""generation_config.json of a folder that is passed on: what is invalid or contradicts itself is mended, and said.

transformers refuses to save some files that were published (temperatures without sampling, token ids that do not
exist), and stops at ``eos_token_id`` alone: a chat model whose turns end with another token would go on for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "generation_config.json"
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "min_p": None, "typical_p": 1.0, "top_k": 50, "epsilon_cutoff": 0.0}
"""Settings that only sampling reads, with the value that says nothing."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
ANSWER = "answer"


def generation_config(
    folder: Path, config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, rows: int
) -> tuple[dict[str, Any], list[str]]:
    """(the file's content, mended, with every token that ends an answer; a sentence for each change).

    Args:
        config: content of config.json, which states token ids where there is no generation_config.json.
        rows: of the embeddings; ids beyond them are none.
    """
    path, notes = folder / FILE, []
    found: dict[str, Any] = {k: config[k] for k in IDS if config.get(k) is not None}
    if path.is_file():
        try:
            found = read_json_object(path)
        except SdrrlError as e:
            notes.append(f"{e}; it is written anew from config.json")
    kept: dict[str, Any] = {}
    for key, value in found.items():
        exists, wrong = _existing(value, rows) if key in IDS and value is not None else (value, [])
        if wrong:
            notes.append(f"{path}: {key} had {wrong}, which no row of the model is; left out")
        if exists is not None or not wrong:
            kept[key] = exists
    if not kept.get("do_sample") and (idle := [k for k, v in SAMPLING.items() if kept.get(k, v) not in (v, None)]):
        kept["do_sample"] = True
        notes.append(f"{path}: {', '.join(idle)} without do_sample contradict each other; do_sample is set to true")
    stated = kept.get("eos_token_id")
    stops = [stated] if isinstance(stated, int) else list(stated or [])
    missing = [i for i in end_tokens(tokenizer) if i not in stops]
    if missing:
        names = ", ".join(str(tokenizer.convert_ids_to_tokens(i)) for i in missing)
        if stops:
            notes.append(f"{path}: eos_token_id lacked {names}, which ends a turn or a text; added")
        stops += missing
    if stops:
        kept["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    return kept, notes


def _existing(value: Any, rows: int) -> tuple[Any, list[Any]]:
    """(the ids that are rows of the model, in the form they came in; the others)."""
    several = value if isinstance(value, list) else [value]
    good = [i for i in several if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < rows]
    wrong = [i for i in several if i not in good]
    return (good or None) if isinstance(value, list) else (good[0] if good else None), wrong


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids after which an answer is over: the tokenizer's end of text, and the chat template's end of a turn."""
    found = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    turn = _turn_end(tokenizer)
    return found if turn is None or turn in found else [*found, turn]


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template puts right after an answer; None where it puts none, or cannot be tried."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": ANSWER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # whatever a template raises; preprocessing has a sentence for it
        return None
    tail = text.rpartition(ANSWER)[2].lstrip()
    specials = sorted(tokenizer.all_special_tokens + list(tokenizer.get_added_vocab()), key=len, reverse=True)
    token = next((t for t in specials if t and tail.startswith(t)), None)
    return None if token is None else int(tokenizer.convert_tokens_to_ids(token))
