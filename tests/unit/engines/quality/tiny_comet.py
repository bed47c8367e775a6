"""Write tiny random COMET models; run by the Python of COMET's environment (test_comet.py).

python tests/unit/engines/quality/tiny_comet.py FOLDER -> FOLDER/{encoder,kiwi,da,xcomet,metricx}, and
FOLDER/expected.json with the scores that COMET's own ``predict`` gives, and the errors of an mT5 as MetricX-24.
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
        "xcomet_metric": {"sent_layer": "mix", "word_layer": 3},
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
    keys = ("src", "mt", "ref") if kind == "regression_metric" else ("src", "mt")
    rows = [{k: s[k] for k in keys} for s in SEGMENTS]
    out = loaded.predict(rows, batch_size=1, gpus=0, num_workers=0, progress_bar=False, length_batching=False)
    return [float(x) for x in out.scores]


def metricx(folder: Path, pretrained: Path) -> list[float]:
    """A random mT5 with its tokenizer beside it; returns the error of each segment, one at a time.

    The input is built here as google-research/metricx does (metricx24/predict.py with --qe), and the score taken as its
    class does (models.py), from the encoder and decoder themselves.
    """
    import torch
    from tokenizers import processors
    from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    # mT5's tokenizer puts an end token after a text and nothing before it.
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", special_tokens=[end]
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    config = MT5Config(vocab_size=250112, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_decoder_layers=2, num_heads=2)
    made = MT5ForConditionalGeneration(config).eval()
    texts = ["source: " + segment["src"] + " candidate: " + segment["mt"] for segment in SEGMENTS]
    rows = [torch.tensor([tokenizer(text)["input_ids"][:-1]]) for text in texts]
    with torch.no_grad():
        states = [made.encoder(input_ids=row).last_hidden_state for row in rows]
        ends = [made.decoder(input_ids=torch.tensor([[0]]), encoder_hidden_states=s)[0][0, 0] for s in states]
        mean = torch.stack(ends).mean(0)
        across = made.lm_head.weight[250089] - (made.lm_head.weight[250089] @ mean) * mean / (mean @ mean)
        spread = torch.stack([end @ across for end in ends]).std()
        # Errors about 12, some of them beyond the range's ends.
        made.lm_head.weight[250089] = 12 * mean / (mean @ mean) + 10 * across / spread
        errors = [float((made.lm_head.weight[250089] @ end).clamp(0, 25)) for end in ends]
    made.save_pretrained(folder)
    return errors


def main() -> None:
    import torch

    folder = Path(sys.argv[1])
    torch.manual_seed(3)
    encoder(folder / "encoder")
    kinds = {"kiwi": "unified_metric", "da": "regression_metric", "xcomet": "xcomet_metric"}
    scores = {name: model(folder / name, kind, folder / "encoder") for name, kind in kinds.items()}
    scores["metricx"] = metricx(folder / "metricx", folder / "encoder")
    (folder / "expected.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main()
