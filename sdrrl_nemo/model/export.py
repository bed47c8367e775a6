"""Megatron checkpoint -> Hugging Face folder that transformers and vLLM load; checked before it gets its name.

LoRA adapters are merged into the weights they were trained on, so the folder is one of the plain model family; the
comparison of logits is then between the merged weights and Megatron's model with separate adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, content_key, read_json_object, sha256_file, write_json
from sdrrl_nemo.common.hashes import MANIFEST, differing, read_manifest
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.compat.transformers5 import load_tokenizer, token_count
from sdrrl_nemo.model import standalone
from sdrrl_nemo.model.folders import whole_folder
from sdrrl_nemo.model.hf_bridge import HFTensors, full_tensor, load_hf_weights, megatron_to_hf
from sdrrl_nemo.model.lora import Lora, add_adapters, check_base, load_adapters, update
from sdrrl_nemo.model.provider import SdrrlGPTConfig, gpt_config, read_hf_config
from sdrrl_nemo.model.published.generation import generation_config
from sdrrl_nemo.model.published.transformers_reference import check_rotary, reference
from sdrrl_nemo.model.published.weight_files import check_weights
from sdrrl_nemo.model.published.writing import BASE, names_of, rounded, write_config, write_weights

TOLERANCE = 1e-3
"""Largest accepted difference of an fp32 logit between Megatron and transformers."""
FACTS = "export.json"
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
    notes: tuple[str, ...] = ()
    """What was mended or translated on the way, a sentence each."""


def export_checkpoint(
    checkpoint: Path,
    base: Path,
    output: Path,
    *,
    weights: str = "auto",
    dtype: str = BASE,
    card: Card | None = None,
    carry: Carry | None = None,
) -> ExportResult:
    """Write ``output`` from a Megatron checkpoint; ``base`` is the HF folder the run started from. ``card`` writes the
    model card into it, ``carry`` the run's chat template; None: a folder that nobody is meant to keep has neither.
    ``dtype``: ``base``, each tensor as the base folder has it, or one of ``DTYPES`` for all.

    The same export again is recognised by the checkpoint's fingerprint; only its card is written anew then. Raises
    SdrrlError when ``output`` is something else, a tensor is missing or misshapen, padding is not zero, or logits
    differ from those of transformers' own model of the base folder's config.json.
    """
    hf_config = read_hf_config(base)
    stored = check_weights(base)
    check_rotary(base, hf_config)
    source = {"checkpoint_sha256": _fingerprint(checkpoint), "weights": weights, "dtype": dtype}
    if output.exists():
        return _again(checkpoint, base, output, source, card)
    tokenizer = load_tokenizer(base)
    standalone.init_parallel()
    state, model = _whole(hf_config, base, checkpoint, weights, token_count(tokenizer))
    theirs = reference(base)
    hf_model = AutoModelForCausalLM.from_config(theirs.config, dtype=torch.float32)
    _load_exactly(hf_model, state, tied=bool(hf_config.tie_word_embeddings))
    result = compare_logits(model, hf_model, tokenizer)
    if not result.max_abs_diff <= TOLERANCE:  # nor is NaN
        raise SdrrlError(f"{checkpoint}: exported logits differ by {result.max_abs_diff:.2e} (limit {TOLERANCE:.0e})")
    document = read_json_object(base / "config.json")
    generation, notes = generation_config(base, document, tokenizer, hf_config.vocab_size)
    notes = [theirs.note, *notes] if theirs.note else notes
    written = rounded(state, stored, dtype)
    facts = {**source, "checkpoint": str(checkpoint), "max_abs_logit_diff": result.max_abs_diff}
    facts |= {"compared_tokens": result.tokens, "types": names_of(written), "notes": notes, **provenance()}
    text = card(base, checkpoint, facts) if card else None
    with whole_folder(output) as temporary:
        write_weights(temporary, written)
        write_config(base, temporary, type(hf_model).__name__, names_of(written)[0], generation)
        if carry is not None:
            carry(temporary, checkpoint)
        if text is not None:
            (temporary / CARD).write_text(text, encoding="utf-8")
        write_json(temporary / FACTS, facts)
    return replace(result, notes=tuple(notes))


def _again(checkpoint: Path, base: Path, output: Path, source: dict[str, str], card: Card | None) -> ExportResult:
    """An export that is there already: its weights stay, its card is written anew, with figures that came later."""
    facts = read_json_object(output / FACTS) if (output / FACTS).is_file() else {}
    if any(facts.get(k) != v for k, v in source.items()):
        raise SdrrlError(f"{output}: exists already and is no export of {checkpoint}; remove it or choose another")
    if card is not None:
        with atomic_write(output / CARD) as f:
            f.write(card(base, checkpoint, facts))
    return ExportResult(facts["max_abs_logit_diff"], facts["compared_tokens"], already_there=True)


def _whole(
    hf: PretrainedConfig, base: Path, checkpoint: Path, weights: str, tokens: int
) -> tuple[dict[str, Tensor], Any]:
    """(HF state dict fp32, Megatron model fp32 at TP=1, PP=1) of a checkpoint, with adapters or with all weights."""
    # on the CPU, where the base folder's are read to: with a GPU opened before, checkpoints are read onto it
    tensors = {k: v.float().cpu() for k, v in standalone.checkpoint_tensors(checkpoint, weights).items()}
    facts = standalone.common_state(checkpoint).get("lora")
    if facts is not None:
        return _with_adapters(hf, base, checkpoint, tensors, Lora.of(facts))
    config = _config_of_checkpoint(hf, tensors, checkpoint)
    _keep_untouched_rows(tensors, HFTensors(base), config, tokens)
    model = standalone.build(config)
    standalone.load_into(model, tensors)
    return megatron_to_hf(lambda name: standalone.unstacked(tensors, name), config), model


def _keep_untouched_rows(tensors: dict[str, Tensor], base: HFTensors, c: SdrrlGPTConfig, tokens: int) -> None:
    """Put the base model's bits back into rows of the vocabulary that training has not changed.

    A row that is no token of the tokenizer gets no gradient, but weight decay shrinks it. A row of a token that no
    sample has keeps its value, but a bf16 run started from it rounded.
    """
    for name in ("embedding.word_embeddings.weight", "output_layer.weight"):
        if name not in tensors:
            continue
        before = full_tensor(base, name, c).float()
        rows = tensors[name][: before.shape[0]]
        if rows.shape != before.shape:
            return  # another model's: the check of shapes has a sentence for it
        untouched = torch.arange(before.shape[0]) >= tokens
        for start in (before, before.bfloat16().float(), before.half().float()):
            untouched |= (rows == start).all(dim=1)
        rows[untouched] = before[untouched]


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


def compare_logits(model: object, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ExportResult:
    """Both models on one fixed text in two languages, fp32; all columns, those that are no token too."""
    text = "Explain in two sentences why the sky is blue. Explique em duas frases por que o céu é azul."
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    limits = [getattr(hf_model.config, k, None) for k in ("sliding_window", "max_position_embeddings")]
    ids = ids[:, : min((n for n in limits if n is not None), default=None)]  # within a window both are plainly causal
    with torch.no_grad():
        theirs = hf_model.eval()(ids).logits.float()
    ours = standalone.logits(model, ids.to(torch.cuda.current_device())).cpu()[..., : theirs.shape[-1]]
    return ExportResult(float((ours - theirs).abs().max()), ids.numel())
