#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Give a model tokens of the target language; their embeddings start as the mean of the pieces they were before.

    tools/expand_vocab.py --model HF_FOLDER --output NEW_FOLDER --corpus texts.jsonl --count 2000
    tools/expand_vocab.py --model HF_FOLDER --output NEW_FOLDER --words words.txt [--corpus texts.txt]

With --count the tokenizer's byte-pair training continues on the corpus; with --words each word of a file becomes one
token (its beginnings become tokens on the way). Every tenth text of the corpus is only measured on. Preprocess, train
and export with the new folder as with any other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError


def main(argv: Sequence[str]) -> None:
    """Choose the tokens, write the folder, print pieces per word before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--words", type=Path, help="text file, one word a line")
    parser.add_argument("--bare", action="store_true", help="words without the space before them (Japanese, Thai)")
    parser.add_argument("--corpus", type=Path, help="texts of the language: .jsonl, or plain text, one a line")
    parser.add_argument("--keys", default="text", help="fields of the .jsonl that hold text, comma-separated")
    parser.add_argument("--count", type=int, default=0, help="tokens to learn from the corpus")
    parser.add_argument("--min-count", type=int, default=2, help="least occurrences of a learnt token")
    args = parser.parse_args(argv)
    if args.count < 0 or args.min_count < 1 or bool(args.words) == bool(args.count):
        raise SdrrlError("give either --words, or --corpus with --count (positive; --min-count at least 1)")
    if args.count and not args.corpus:
        raise SdrrlError("--count needs --corpus: the tokens are learnt from it")

    from sdrrl_nemo.compat.start import prepare

    prepare()
    from sdrrl_nemo.data.text.tokenizer import check_model_folder
    from sdrrl_nemo.model.bpe import GrowingBpe
    from sdrrl_nemo.model.vocabulary import expand, read_texts, read_words, split

    bpe = GrowingBpe(check_model_folder(args.model))
    words = read_words(args.words) if args.words else []
    learn, measure = split(read_texts(args.corpus, args.keys.split(","))) if args.corpus else ([], words)
    for n, word in enumerate(words, 1):
        bpe.add_word(word, f"{args.words}, word {n}", bare=args.bare)
    if args.count and not bpe.learn(bpe.count_words(learn), args.count, args.min_count):
        raise SdrrlError(f"{args.corpus}: no piece of a word occurs {args.min_count} times; nothing to learn")
    m = expand(args.model, args.output, bpe, measure)
    last = bpe.first_id + len(bpe.new) - 1
    print(f"{args.output}: {len(bpe.new)} new tokens, ids {bpe.first_id} to {last}")
    print(
        f"pieces per word on {m.texts} texts: {m.pieces_before / max(m.words, 1):.3f} before, "
        f"{m.pieces_after / max(m.words, 1):.3f} after ({m.pieces_before} and {m.pieces_after} pieces)"
    )


if __name__ == "__main__":
    sys.exit(run(main))
