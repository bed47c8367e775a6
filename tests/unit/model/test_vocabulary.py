"""Vocabulary expansion: means exact, old rows and ids kept, texts unchanged, tied or not, three kinds of tokenizer."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json
from sdrrl_nemo.compat.transformers5 import load_tokenizer
from sdrrl_nemo.model.bpe import GrowingBpe
from sdrrl_nemo.model.vocabulary import split
from tests.tiny_families import family_model
from tests.unit.data.text.tokenizers_of_families import qwen_like
from tools.expand_vocab import main

WORDS = ("informação", "também", "coração")
TEXTS = [
    "A informação também está no coração da cidade.",
    "Também há informação, informações e desinformação; o coração bate.",
    "informação INFORMAÇÃO  2024\tcoração\n<s>user: também</s> 心臓 ção",
] * 4
EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def _model(folder: Path, family: str = "llama2") -> Path:
    """llama2: untied, qwen2.5: tied; byte-level tokenizer with as many tokens as the model has rows."""
    return family_model(folder, family, folder)


def _edit_tokenizer(folder: Path, change: Any) -> None:
    path = folder / "tokenizer.json"
    document = read_json(path)
    change(document)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _words_file(folder: Path, words: tuple[str, ...] = WORDS) -> Path:
    path = folder / "words.txt"
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path


def _corpus(folder: Path) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS), encoding="utf-8")
    return path


def _expand(model: Path, *args: str) -> Path:
    output = model.with_name(f"{model.name}-expanded")
    assert run(main, ["--model", str(model), "--output", str(output), *args]) == 0
    return output


def test_every_tenth_text_is_measured_on_and_not_learnt_from() -> None:
    texts = [f"text {i}" for i in range(1, 21)]
    learn, measure = split(texts)
    assert measure == ["text 10", "text 20"]
    assert learn == [t for t in texts if t not in measure]
    assert split(texts[:9]) == (texts[:9], texts[:9])  # too few to hold one back


def _check_weights(source: Path, output: Path) -> None:
    """Each new row is the mean of its old pieces' rows; everything else has its old bits."""
    before, after = load_file(source / "model.safetensors"), load_file(output / "model.safetensors")
    new = read_json(output / "expansion.json")["new_tokens"]
    first = new[0]["id"]
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if name not in (EMBEDDINGS, OUTPUT):
            assert torch.equal(after[name], tensor), name
            continue
        assert torch.equal(after[name][:first], tensor[:first]), name
        assert after[name].dtype == tensor.dtype
        for row in new:
            assert len(row["pieces"]) > 1 and max(row["pieces"]) < first
            mean = tensor[row["pieces"]].double().mean(0).to(tensor.dtype)
            assert torch.equal(after[name][row["id"]], mean)
        assert len(after[name]) == read_json(output / "config.json")["vocab_size"] >= new[-1]["id"] + 1


def _check_texts(source: Path, output: Path) -> None:
    """Ids of the old tokens are the same, and texts come back the same from no more pieces."""
    old, new = load_tokenizer(source), load_tokenizer(output)
    vocabulary = new.get_vocab()
    assert all(vocabulary[token] == i for token, i in old.get_vocab().items())
    for text in TEXTS:
        a, b = (t(text, add_special_tokens=False).input_ids for t in (old, new))
        assert new.decode(b) == old.decode(a)
        assert len(b) < len(a)
    assert new("XYZ 12!").input_ids == old("XYZ 12!").input_ids  # no new piece in it
    assert new.chat_template == old.chat_template


@pytest.mark.parametrize("family", ["llama2", "qwen2.5"])
def test_words_become_tokens(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _model(tmp_path / "model", family)
    output = _expand(source, "--words", str(_words_file(tmp_path)))
    assert (OUTPUT in load_file(output / "model.safetensors")) == (family == "llama2")
    _check_weights(source, output)
    _check_texts(source, output)
    old, new = (load_tokenizer(p) for p in (source, output))
    for word in WORDS:
        assert len(new(f"x {word}").input_ids) == 2
    pieces = {r["id"]: r["pieces"] for r in read_json(output / "expansion.json")["new_tokens"]}
    for word in WORDS:  # the pieces are those the old tokenizer cuts the word into
        assert pieces[new(f" {word}").input_ids[0]] == old(f" {word}").input_ids
    assert "3.000 before" not in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(output)
    assert loaded.get_input_embeddings().weight.shape[0] == len(new)
    assert not list(tmp_path.glob(".*unfinished"))


def test_an_expanded_qwen_is_what_transformers_itself_loads(tmp_path: Path) -> None:
    """Version 5 builds that family anew from vocabulary and merges, and does not read the rest of tokenizer.json."""
    source, output = qwen_like(tmp_path / "qwen"), tmp_path / "more"
    bpe = GrowingBpe(source)
    bpe.merge(("the", "und"))
    shutil.copytree(source, output)
    (output / "tokenizer.json").write_text(json.dumps(bpe.document), encoding="utf-8")
    ours, theirs = load_tokenizer(output), AutoTokenizer.from_pretrained(output)
    assert ours.get_vocab() == theirs.get_vocab()
    for text in (*TEXTS, "x theund <|im_end|>", "A 2024\n\n"):
        assert ours(text).input_ids == theirs(text).input_ids
    assert theirs("theund").input_ids == [bpe.first_id]


def test_tokens_are_learnt_from_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _model(tmp_path / "model")
    output = _expand(source, "--corpus", str(_corpus(tmp_path)), "--count", "12")
    _check_weights(source, output)
    _check_texts(source, output)
    facts = read_json(output / "expansion.json")
    assert len(facts["new_tokens"]) == 12
    assert facts["measured"]["texts"] == 1  # the tenth of twelve
    assert facts["measured"]["pieces_after"] < facts["measured"]["pieces_before"]
    assert "12 new tokens, ids 323 to 334" in capsys.readouterr().out


def _naive(words: Counter[tuple[str, ...]], known: set[str], number: int) -> list[str]:
    """Byte-pair training counted anew for each merge."""
    new = []
    for _ in range(number):
        counts: Counter[tuple[str, str]] = Counter()
        for pieces, n in words.items():
            for pair in pairwise(pieces):
                counts[pair] += n
        best = max(counts.values())
        pair = min(p for p, n in counts.items() if n == best)
        assert "".join(pair) not in known
        new.append("".join(pair))
        merged: Counter[tuple[str, ...]] = Counter()
        for pieces, n in words.items():
            out: list[str] = []
            for piece in pieces:
                # from the left, each piece once; a merged piece is longer than the first of the pair
                if out and (out[-1], piece) == pair:
                    out[-1] += piece
                else:
                    out.append(piece)
            merged[tuple(out)] += n
        words = merged
    return new


def test_learning_is_byte_pair_training_continued(tmp_path: Path) -> None:
    bpe = GrowingBpe(_model(tmp_path / "model"))
    counts = bpe.count_words(TEXTS)
    assert all(" " not in word for word in counts)
    start: Counter[tuple[str, ...]] = Counter()
    for word, n in counts.items():
        start[tuple(bpe.old_pieces(word))] += n
    expected = _naive(start, set(bpe.vocab), 20)
    assert bpe.learn(counts, 20, 1) == 20
    assert bpe.new == expected
    for word in counts:  # and the pieces are what the real tokenizer gives
        assert bpe.pieces(word) == [t.value for t in Tokenizer.from_str(json.dumps(bpe.document)).model.tokenize(word)]


def test_learning_ends_when_nothing_is_frequent(tmp_path: Path) -> None:
    bpe = GrowingBpe(_model(tmp_path / "model"))
    counts = Counter({"Ġcidade": 5})
    assert 0 < bpe.learn(counts, 100, 5) < 10
    assert bpe.pieces("Ġcidade") == ["Ġcidade"]
    assert bpe.learn(Counter({"Ġmar": 4}), 100, 5) == 0


def test_sentencepiece_tokenizer(tmp_path: Path) -> None:
    """As Llama 2 has it: no pre-tokenizer, "▁" for a space, bytes for unknown letters."""
    source = _model(tmp_path / "model")

    def llama2(document: dict[str, Any]) -> None:
        letters = sorted(set("".join(TEXTS)) - set("心臓 \t\n"))
        bytes_ = [f"<0x{i:02X}>" for i in range(256)]
        merges = [["i", "n"], ["in", "f"], ["▁", "d"], ["o", "r"]]
        names = ["<pad>", "<s>", "</s>", "▁", *letters, *("".join(m) for m in merges), *bytes_]
        document["model"] |= {
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": merges,
            "byte_fallback": True,
            "unk_token": None,
        }
        assert len(names) <= 323 + 30
        document["normalizer"] = {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        }
        document["pre_tokenizer"] = None
        document["decoder"] = {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        }

    _edit_tokenizer(source, llama2)
    size = len(load_tokenizer(source))
    config = read_json(source / "config.json")
    model = AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(size + 3, mean_resizing=False)  # three rows that no token has
    model.save_pretrained(source)
    assert read_json(source / "config.json") | {"vocab_size": 0} == config | {"vocab_size": 0}
    output = _expand(source, "--words", str(_words_file(tmp_path)))
    _check_weights(source, output)
    _check_texts(source, output)
    new = load_tokenizer(output)
    assert new.tokenize("no coração") == ["▁", "n", "o", "▁coração"]
    assert new.convert_tokens_to_ids("▁coração") > size
    assert read_json(output / "expansion.json")["new_tokens"][0]["id"] == size


def test_special_tokens_behind_the_vocabulary_keep_their_ids(tmp_path: Path) -> None:
    """As Llama 3 has it: special tokens outside the byte-pair model, with the highest ids."""
    source = _model(tmp_path / "model")

    def llama3(document: dict[str, Any]) -> None:
        document["model"]["ignore_merges"] = True
        vocab = document["model"]["vocab"]
        last = max(vocab, key=vocab.get)
        del vocab[last]
        document["model"]["merges"] = [m for m in document["model"]["merges"] if "".join(m) != last]
        special = {"content": "<|eot|>", "id": 322, "special": True}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        document["added_tokens"].append({**flags, **special})

    _edit_tokenizer(source, llama3)
    assert load_tokenizer(source)("a<|eot|>").input_ids[-1] == 322
    output = _expand(source, "--corpus", str(_corpus(tmp_path)), "--count", "9")
    _check_weights(source, output)
    _check_texts(source, output)
    assert load_tokenizer(output)("a<|eot|>").input_ids[-1] == 322


def test_sharded_weights_in_bf16(tmp_path: Path) -> None:
    source = _model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="60KB")
    files = sorted(p.name for p in source.glob("*.safetensors"))
    assert len(files) > 2
    output = _expand(source, "--words", str(_words_file(tmp_path)))
    assert sorted(p.name for p in output.glob("*.safetensors")) == files
    index, old = (read_json(p / "model.safetensors.index.json") for p in (output, source))
    new_rows = len(read_json(output / "expansion.json")["new_tokens"])
    assert index["weight_map"] == old["weight_map"]
    assert index["metadata"]["total_size"] == old["metadata"]["total_size"] + 2 * 2 * 48 * new_rows
    before, after = ({k: v for f in files for k, v in load_file(p / f).items()} for p in (source, output))
    for row in read_json(output / "expansion.json")["new_tokens"]:
        mean = before[OUTPUT][row["pieces"]].double().mean(0).bfloat16()
        assert torch.equal(after[OUTPUT][row["id"]], mean)
    assert all(torch.equal(after[k][: len(v)], v) for k, v in before.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("informação", "informação"), "word 2: 'informação' is one token already"),
        (("a",), "word 1: 'a' is one token already"),
        (("bom dia",), "'bom dia' is not one word"),
        ((), "holds no word"),
    ],
)
def test_bad_words(words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = _model(tmp_path / "model")
    path = _words_file(tmp_path, words)
    capsys.readouterr()  # transformers 5 draws a bar while it saves the model
    assert run(main, ["--model", str(model), "--output", str(tmp_path / "out"), "--words", str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, words, corpus = _model(tmp_path / "model"), _words_file(tmp_path), _corpus(tmp_path)
    taken = tmp_path / "taken"
    taken.mkdir()
    out = tmp_path / "out"
    unigram = _model(tmp_path / "unigram")
    _edit_tokenizer(unigram, lambda d: d["model"].update(type="Unigram"))
    capsys.readouterr()
    cases = [
        ([model, taken, "--words", words], "exists already"),
        ([tmp_path / "none", out, "--words", words], "no such folder"),
        ([model, out, "--words", tmp_path / "none.txt"], "no such file"),
        ([model, out, "--words", words, "--count", 3], "give either --words"),
        ([model, out, "--count", 3], "--count needs --corpus"),
        ([model, out, "--corpus", corpus, "--count", 3, "--keys", "answer"], "line 1: no text under the key 'answer'"),
        ([model, out, "--corpus", corpus, "--count", 3, "--min-count", 999], "nothing to learn"),
        ([unigram, out, "--words", words], "only plain byte-pair tokenizers"),
    ]
    for (source, output, *rest), message in cases:
        assert run(main, ["--model", str(source), "--output", str(output), *map(str, rest)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said
    assert not out.exists()
