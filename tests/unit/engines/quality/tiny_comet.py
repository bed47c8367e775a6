"""Write tiny random COMET models; run by the Python of COMET's environment (test_comet.py).

python tests/unit/engines/quality/tiny_comet.py FOLDER -> FOLDER/{encoder,kiwi,da}, and FOLDER/expected.json with the
scores that COMET's own ``predict`` gives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SEGMENTS = [
    {"src": "Click the button.", "mt": "Clique no botão.", "ref": "Clique no botão."},
    {"src": "The cat sat.", "mt": "O gato sentou-se no tapete vermelho da sala.", "ref": "O gato sentou."},
    {"src": "猫。", "mt": "gato", "ref": "gato"},
    {"src": 'One\u2028two "three"', "mt": "", "ref": "x"},
    *({"src": "word " * n, "mt": "palavra " * n, "ref": "palavra"} for n in range(1, 12)),
]


def encoder(folder: Path) -> None:
    """An XLM-RoBERTa of 4 layers with a vocabulary trained on the segments."""
    import sentencepiece
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

    folder.mkdir(parents=True)
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(s[k] for s in SEGMENTS for k in s if s[k]) * 5, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=60,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    tokenizer = XLMRobertaTokenizerFast(vocab_file=str(folder / "sentencepiece.bpe.model"))
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model(folder: Path, kind: str, pretrained: Path) -> list[float]:
    """Write a checkpoint in the layout of the hub; returns the scores of COMET's own predict."""
    import pytorch_lightning
    import torch
    import yaml
    from comet.models import load_from_checkpoint, str2model

    common = {
        "encoder_model": "XLM-RoBERTa",
        "pretrained_model": str(pretrained),
        "layer_transformation": "softmax",
        "layer_norm": False,
        "hidden_sizes": [32, 16],
        "dropout": 0.1,
        "batch_size": 4,
    }
    own = {
        "unified_metric": {"sent_layer": "mix", "word_layer": 3, "input_segments": ["mt", "src"]},
        "regression_metric": {"layer": "mix", "pool": "avg"},
    }[kind]
    made = str2model[kind](**common, **own, load_pretrained_weights=False)
    (folder / "checkpoints").mkdir(parents=True)
    hparams = {**common, **own, "class_identifier": kind}
    (folder / "hparams.yaml").write_text(yaml.safe_dump(hparams), encoding="utf-8")
    state = {
        "state_dict": made.state_dict(),
        "hyper_parameters": {**common, **own},
        "pytorch-lightning_version": pytorch_lightning.__version__,
        "epoch": 0,
        "global_step": 0,
    }
    torch.save(state, folder / "checkpoints" / "model.ckpt")
    loaded = load_from_checkpoint(folder / "checkpoints" / "model.ckpt", local_files_only=True)
    keys = ("src", "mt") if kind == "unified_metric" else ("src", "mt", "ref")
    rows = [{k: s[k] for k in keys} for s in SEGMENTS]
    out = loaded.predict(rows, batch_size=1, gpus=0, num_workers=0, progress_bar=False, length_batching=False)
    return [float(x) for x in out.scores]


def main() -> None:
    import torch

    folder = Path(sys.argv[1])
    torch.manual_seed(3)
    encoder(folder / "encoder")
    kinds = {"kiwi": "unified_metric", "da": "regression_metric"}
    scores = {name: model(folder / name, kind, folder / "encoder") for name, kind in kinds.items()}
    (folder / "expected.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
