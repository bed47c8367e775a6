"""Scores translations with a COMET model; run by the Python of COMET's own environment, never imported.

Requests are JSON lines on stdin, replies JSON lines on the file descriptor named by the second argument; whatever
libraries print goes to stderr. First request: {"model", "encoder", "device", "precision", "batch_size", "reference"};
reply {"ready": {...versions}}. Then {"id", "want": "scores", "data": [{"src", "mt"[, "ref"]}]} -> {"id", "scores":
[...]}, or "lengths" in the place of both: the subwords of each row. An error is {"id", "error": "one sentence"}. The
worker ends when stdin does, so it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from typing import Any


def load(options: dict[str, Any]) -> Any:
    """The model of ``options``, ready to score, without asking a hub for anything."""
    import yaml

    checkpoint = options["model"]
    hparams_file = os.path.join(os.path.dirname(os.path.dirname(checkpoint)), "hparams.yaml")
    with open(hparams_file, encoding="utf-8") as f:
        hparams = yaml.safe_load(f)
    kind = hparams.get("class_identifier")
    takes_reference = uses_reference(kind, hparams)
    if None not in (takes_reference, options.get("reference")) and takes_reference != options["reference"]:
        raise ValueError(
            f"{hparams_file}: this model scores {'with' if takes_reference else 'without'} references ({kind}); "
            "quality estimation needs wmt22-cometkiwi-da, scores with references need wmt22-comet-da"
        )
    import torch  # only now: a refusal need not wait for it
    from comet.models import str2model

    if kind not in str2model:
        raise ValueError(f"{hparams_file}: class_identifier '{kind}' is not a model of this COMET")
    encoder = options["encoder"] or hparams["pretrained_model"]
    if not os.path.isdir(encoder):
        raise ValueError(
            f"the encoder '{encoder}' is no folder here; download it and name it in the option 'encoder' "
            "(wmt22-cometkiwi-da: microsoft/infoxlm-large; wmt22-comet-da: xlm-roberta-large)"
        )
    arguments = {
        "checkpoint_path": checkpoint,
        "load_pretrained_weights": False,
        "map_location": torch.device("cpu"),
        "strict": False,
        "pretrained_model": encoder,
        "local_files_only": True,
    }
    if hparams.get("layer_transformation") == "sparsemax_patch":
        arguments["layer_transformation"] = "softmax"  # what comet.load_from_checkpoint does since 2.2.4
    try:
        model = str2model[kind].load_from_checkpoint(**arguments, weights_only=True)
    except pickle.UnpicklingError as e:
        print(f"{checkpoint} holds more than tensors ({one_line(e)[:200]}); unpickling it whole", file=sys.stderr)
        model = str2model[kind].load_from_checkpoint(**arguments, weights_only=False)
    model.eval()
    if options["precision"] == "bf16":
        model.to(torch.bfloat16)
    elif options["precision"] == "fp16":
        model.half()
    return model.to(options["device"])


def uses_reference(kind: Any, hparams: dict[str, Any]) -> bool | None:
    """Whether a model reads ``ref``: the unified ones say which segments they read; None for a class not known here
    and for xCOMET, which reads references where it is given any."""
    if kind == "unified_metric":
        return "ref" in hparams.get("input_segments", ["mt", "src", "ref"])
    return {"regression_metric": True, "ranking_metric": True, "referenceless_regression_metric": False}.get(kind)


def score(model: Any, rows: list[dict[str, str]], batch_size: int) -> list[float]:
    """One score a row. Rows of like length share a batch, so that little is padded."""
    import torch

    order = sorted(range(len(rows)), key=lambda i: (-sum(len(v) for v in rows[i].values()), i))
    scores = [0.0] * len(rows)
    device = next(model.parameters()).device
    with torch.no_grad():
        for begin in range(0, len(order), batch_size):
            part = order[begin : begin + batch_size]
            batch = model.prepare_for_inference([rows[i] for i in part])
            values = model.predict_step(_to(batch, device)).scores.view(-1)
            for i, value in zip(part, values.float().cpu().tolist(), strict=True):
                scores[i] = value
    return scores


def lengths(model: Any, rows: list[dict[str, str]]) -> list[int]:
    """Subwords of each row, those of all its texts with the marks around each: the encoder reads them in one piece."""
    totals = [0] * len(rows)
    for key in rows[0] if rows else ():
        encoded = model.encoder.tokenizer([row[key] for row in rows], truncation=False)["input_ids"]
        totals = [total + len(ids) for total, ids in zip(totals, encoded, strict=True)]
    return totals


def _to(batch: Any, device: Any) -> Any:
    """A model's inputs on its device: dictionaries of tensors, or a tuple of such."""
    if isinstance(batch, (tuple, list)):
        return tuple(_to(part, device) for part in batch)
    return {k: v.to(device) if hasattr(v, "to") else v for k, v in batch.items()}


def one_line(error: Exception) -> str:
    """A message without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def serve(load: Any, score: Any, lengths: Any, package: str) -> None:
    """Speak the protocol with a model's three functions; ``package`` is named with its version in the first reply."""
    out = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")

    def reply(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    options = json.loads(sys.stdin.readline())
    try:
        model = load(options)
        from importlib import metadata

        import torch

        reply({"ready": {package: metadata.version(package), "torch": torch.__version__}})
    except Exception as e:  # told to the parent, which makes one sentence of it
        reply({"error": one_line(e)})
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.get("want") == "lengths":
                reply({"id": request["id"], "lengths": lengths(model, request["data"])})
            else:
                reply({"id": request["id"], "scores": score(model, request["data"], options["batch_size"])})
        except Exception as e:
            reply({"id": request["id"], "error": one_line(e)})


if __name__ == "__main__":
    serve(load, score, lengths, "unbabel-comet")
