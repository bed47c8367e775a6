"""Megatron checkpoint -> Hugging Face folder that transformers and vLLM load; checked before it gets its name.

LoRA adapters are merged into the weights they were trained on, so the folder is one of the plain model family; the
comparison of logits is then between the merged weights and Megatron's model with separate adapters.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json, sha256_file, write_json
from sdrrl_nemo.common.hashes import MANIFEST, differing, read_manifest
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.compat.transformers5 import for_both_versions, load_tokenizer
from sdrrl_nemo.model import standalone
from sdrrl_nemo.model.folders import whole_folder
from sdrrl_nemo.model.hf_bridge import HFTensors, full_tensor, load_hf_weights, megatron_to_hf
from sdrrl_nemo.model.lora import Lora, add_adapters, check_base, load_adapters, update
from sdrrl_nemo.model.provider import SdrrlGPTConfig, gpt_config, read_hf_config

CARRIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
TOLERANCE = 1e-3
"""Largest accepted difference of an fp32 logit between Megatron and transformers."""
FACTS = "export.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CARD = "README.md"
Card = Callable[[Path, Path, dict[str, Any]], str]
"""(base folder, checkpoint, facts of the export) -> the model card: report/model_card.py."""
Carry = Callable[[Path, Path], None]
"""(folder being made, checkpoint): chat template and end tokens: data/text/chat_files.py."""


@dataclass(frozen=True)
class ExportResult:
    """What an export measured: largest absolute difference of a logit, and tokens compared."""

    max_abs_diff: float
    tokens: int
    already_there: bool = False


def export_checkpoint(
    checkpoint: Path,
    base: Path,
    output: Path,
    *,
    weights: str = "auto",
    dtype: str = "fp32",
    card: Card | None = None,
    carry: Carry | None = None,
) -> ExportResult:
    """Write ``output`` from a Megatron checkpoint; ``base`` is the HF folder the run started from. ``card`` writes the
    model card into it, ``carry`` the run's chat template; None: a folder that nobody is meant to keep has neither.

    The same export again is recognised by the checkpoint's fingerprint and not redone. Raises SdrrlError when
    ``output`` is something else, a tensor is missing or misshapen, padding is not zero, or logits differ.
    """
    hf_config = read_hf_config(base)
    source = {"checkpoint_sha256": _fingerprint(checkpoint), "weights": weights, "dtype": dtype}
    if output.exists():
        facts = read_json(output / FACTS) if (output / FACTS).is_file() else {}
        if any(facts.get(k) != v for k, v in source.items()):
            raise SdrrlError(f"{output}: exists already and is no export of {checkpoint}; remove it or choose another")
        return ExportResult(facts["max_abs_logit_diff"], facts["compared_tokens"], already_there=True)
    standalone.init_parallel()
    state, model = _whole(hf_config, base, checkpoint, weights)
    hf_model = AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32)
    _load_exactly(hf_model, state, tied=bool(hf_config.tie_word_embeddings))
    result = compare_logits(model, hf_model, base)
    if result.max_abs_diff > TOLERANCE:
        raise SdrrlError(f"{checkpoint}: exported logits differ by {result.max_abs_diff:.2e} (limit {TOLERANCE:.0e})")
    facts = {**source, "checkpoint": str(checkpoint), "max_abs_logit_diff": result.max_abs_diff}
    facts |= {"compared_tokens": result.tokens, **provenance()}
    text = card(base, checkpoint, facts) if card else None
    _write(hf_model.to(DTYPES[dtype]), base, output, facts, text, carry)
    return result


def _whole(hf: PretrainedConfig, base: Path, checkpoint: Path, weights: str) -> tuple[dict[str, Tensor], Any]:
    """(HF state dict fp32, Megatron model fp32 at TP=1, PP=1) of a checkpoint, with adapters or with all weights."""
    tensors = {k: v.float() for k, v in standalone.checkpoint_tensors(checkpoint, weights).items()}
    facts = standalone.common_state(checkpoint).get("lora")
    if facts is not None:
        return _with_adapters(hf, base, checkpoint, tensors, Lora.of(facts))
    config = _config_of_checkpoint(hf, tensors, checkpoint)
    model = standalone.build(config)
    standalone.load_into(model, tensors)
    return megatron_to_hf(lambda name: standalone.unstacked(tensors, name), config), model


def _with_adapters(
    hf: PretrainedConfig, base: Path, checkpoint: Path, adapters: dict[str, Tensor], lora: Lora
) -> tuple[dict[str, Tensor], Any]:
    """W + alpha / rank * B A in fp32 of every adapted weight, the base model's tensors elsewhere."""
    check_base(lora, base, checkpoint)
    config = gpt_config(hf, seq_length=hf.max_position_embeddings, pad_heads_to=lora.pad_heads_to)
    weights = HFTensors(base)

    def merged(name: str) -> Tensor:
        frozen = full_tensor(weights, name, config).float()
        learned = update(adapters, name, lora)
        return frozen if learned is None else frozen + learned

    model = standalone.build(config)
    load_hf_weights(model, base, config, 0, 1)
    add_adapters(model, lora, config, seed=0, tp_rank=0, tp_size=1)
    load_adapters(model, adapters)
    return megatron_to_hf(merged, config), model


def _fingerprint(checkpoint: Path) -> str:
    """Names and SHA-256 of the checkpoint's files, as one key."""
    weights = checkpoint / standalone.WEIGHTS
    if not (weights / "metadata.json").is_file():
        raise SdrrlError(f"{checkpoint}: no finished Megatron checkpoint here (weights/metadata.json is missing)")
    digests = {p.name: sha256_file(p) for p in sorted(weights.iterdir()) if p.is_file()}
    _check_hashes(checkpoint, digests)
    return content_key([list(item) for item in digests.items()])


def _check_hashes(checkpoint: Path, found: dict[str, str]) -> None:
    """SdrrlError where a checkpoint of a run is not as it was written; part of it is a pickle, so before it is read.

    A checkpoint that tools/import_hf.py wrote has no hashes; it is read as it is.
    """
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return
    head = f"{standalone.WEIGHTS}/"
    expected = {k.removeprefix(head): v for k, v in manifest.items() if k.startswith(head)}
    if wrong := differing(expected, found):
        raise SdrrlError(
            f"{checkpoint / standalone.WEIGHTS / wrong[0]}: missing, or not as the run wrote it (its SHA-256 is not "
            f"the one in {MANIFEST}); export another checkpoint of the run"
        )


def _config_of_checkpoint(hf: PretrainedConfig, tensors: dict[str, Tensor], checkpoint: Path) -> SdrrlGPTConfig:
    """Megatron configuration whose head padding is the one the checkpoint was written with."""
    plain = gpt_config(hf, seq_length=hf.max_position_embeddings)
    rows_per_group = (plain.num_attention_heads // plain.num_query_groups + 2) * plain.kv_channels
    qkv = standalone.unstacked(tensors, "decoder.layers.0.self_attention.linear_qkv.weight")
    groups, rest = divmod(qkv.shape[0], rows_per_group)
    if rest or groups < plain.num_query_groups or qkv.shape[1] != hf.hidden_size:
        raise SdrrlError(f"{checkpoint}: linear_qkv is {tuple(qkv.shape)}, which the base model's config cannot give")
    return gpt_config(hf, seq_length=hf.max_position_embeddings, pad_heads_to=groups)


def _load_exactly(hf_model: PreTrainedModel, state: dict[str, Tensor], tied: bool) -> None:
    expected = {k: v.shape for k, v in hf_model.state_dict().items() if not (tied and k == "lm_head.weight")}
    wrong = sorted(k for k in expected.keys() | state.keys() if expected.get(k) != getattr(state.get(k), "shape", None))
    if wrong:
        raise SdrrlError(f"export: tensor '{wrong[0]}' is missing, unknown or misshapen ({len(wrong)} such tensors)")
    hf_model.load_state_dict(state, strict=not tied)
    hf_model.tie_weights()


def compare_logits(model: object, hf_model: PreTrainedModel, base: Path) -> ExportResult:
    """Both models on one fixed prompt in the model's chat template, fp32."""
    tokenizer = load_tokenizer(base)
    text = "Explain in two sentences why the sky is blue. Explique em duas frases por que o céu é azul."
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    ids = ids[:, : getattr(hf_model.config, "sliding_window", None)]  # within the window both are plainly causal
    with torch.no_grad():
        theirs = hf_model.eval()(ids).logits.float()
    ours = standalone.logits(model, ids.to(torch.cuda.current_device())).cpu()[..., : theirs.shape[-1]]
    return ExportResult(float((ours - theirs).abs().max()), ids.numel())


def _write(
    hf_model: PreTrainedModel, base: Path, output: Path, facts: dict[str, Any], card: str | None, carry: Carry | None
) -> None:
    with whole_folder(output) as temporary:
        hf_model.save_pretrained(temporary)
        for name in CARRIED:
            if (base / name).is_file():
                shutil.copy(base / name, temporary / name)
        for_both_versions(temporary)
        if carry is not None:
            carry(temporary, Path(facts["checkpoint"]))
        if card is not None:
            (temporary / CARD).write_text(card, encoding="utf-8")
        write_json(temporary / FACTS, facts)
