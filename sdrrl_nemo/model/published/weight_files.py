"""The weight files of a folder, compared with its config.json before any process starts; no weights are read.

Needs neither torch nor transformers: ``sdrrl train`` asks before it starts torchrun.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json_object, sha256_file
from sdrrl_nemo.model.families import ATTENTION_BIAS, FAMILIES, check_kind
from sdrrl_nemo.model.published.config_keys import read_document
from sdrrl_nemo.model.published.safetensors_header import StoredTensor, stored_tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("F32", "BF16", "F16")
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
BUFFERS = re.compile(r"(^|\.)rotary_emb\.inv_freq$")
"""Rotary frequencies that old versions of transformers wrote; none reads them."""
CHUNK = 1 << 24
"""Bytes that are compared at once."""


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, as transformers chooses them: model.safetensors before an index.

    SdrrlError where there are none, or the index names what is not there.
    """
    if not folder.is_dir():
        raise SdrrlError(f"{folder}: no such folder; model.hf_path must be a Hugging Face folder")
    if (folder / "adapter_config.json").is_file():
        raise SdrrlError(
            f"{folder}/adapter_config.json: the folder has an adapter, which is not served; merge it into the weights"
        )
    if (folder / SINGLE).exists() or (folder / SINGLE).is_symlink():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return sorted({folder / name for name in _weight_map(folder).values()})
    pickles = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt*"))
    if pickles:
        raise SdrrlError(
            f"{pickles[0]}: weights in PyTorch's own format only, which is a program and is not run here; load them "
            "with transformers and save_pretrained them as safetensors"
        )
    raise SdrrlError(f"{folder}: neither {SINGLE} nor {INDEX} is here, so it has no weights; fetch the model again")


def _weight_map(folder: Path) -> dict[str, str]:
    found = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(v, str) for v in found.values()):
        raise SdrrlError(f"{folder / INDEX}: has no weight_map of tensors to files; fetch it again")
    for name, file in found.items():
        if Path(file).name != file:
            raise SdrrlError(f"{folder / INDEX}: tensor '{name}' is said to be in '{file}', no file of the folder")
        if not (folder / file).is_file():
            raise SdrrlError(f"{folder / file}: no such file, but {INDEX} names it (tensor '{name}'); fetch it")
    return found


def tensors_of(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder's weight files; SdrrlError where one is twice there, or not where the index says."""
    found: dict[str, StoredTensor] = {}
    files = weight_files(folder)
    for file in files:
        for name, tensor in stored_tensors(file).items():
            if name in found:
                first = found[name].file.name
                raise SdrrlError(f"{file}: tensor '{name}' is here and in {first} too; fetch the model again")
            found[name] = tensor
    if files[0].name != SINGLE:
        said = _weight_map(folder)
        for name in sorted(said.keys() | found.keys()):
            here = found[name].file.name if name in found else "no file"
            if (there := said.get(name, "no file")) != here:
                raise SdrrlError(f"{folder / INDEX}: tensor '{name}' is in {here}, the index says {there}")
    return found


def expected_shapes(document: Mapping[str, Any], where: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the tensors that a config.json asks for, without an output layer that is tied.

    ``document``: its content, with all its keys checked.
    """
    check_kind(document.get("model_type"), where)
    kind = document["model_type"]
    f = FAMILIES[kind]
    h, wide, heads = (int(document[k]) for k in ("hidden_size", "intermediate_size", "num_attention_heads"))
    groups = int(document.get("num_key_value_heads") or _default_groups(document, kind, heads))
    d = int(document.get("head_dim") or (128 if kind == "qwen3" else h // heads))
    biased = kind in ATTENTION_BIAS and bool(document.get("attention_bias"))
    rows, kv, q = int(document["vocab_size"]), groups * d, heads * d
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (h,),
        "post_attention_layernorm.weight": (h,),
        **{f"self_attn.{x}_proj.weight": (n, h) for x, n in zip("qkv", (q, kv, kv), strict=True)},
        "self_attn.o_proj.weight": (h, q),
        **{f"mlp.{x}_proj.weight": (wide, h) for x in ("gate", "up")},
        "mlp.down_proj.weight": (h, wide),
    }
    if f.qkv_bias or biased:
        layer |= {f"self_attn.{x}_proj.bias": (n,) for x, n in zip("qkv", (q, kv, kv), strict=True)}
    if biased:
        layer["self_attn.o_proj.bias"] = (h,)
    if kind == "llama" and document.get("mlp_bias"):
        layer |= {f"mlp.{x}_proj.bias": (n,) for x, n in (("gate", wide), ("up", wide), ("down", h))}
    if f.qk_norm:
        layer |= {f"self_attn.{x}_norm.weight": (d,) for x in "qk"}
    whole = {EMBEDDING: (rows, h), "model.norm.weight": (h,)}
    if not document.get("tie_word_embeddings"):
        whole[OUTPUT] = (rows, h)
    yield from whole.items()
    for i in range(int(document["num_hidden_layers"])):
        yield from ((f"model.layers.{i}.{name}", shape) for name, shape in layer.items())


def _default_groups(document: Mapping[str, Any], kind: str, heads: int) -> int:
    """Key/value heads where config.json states none: transformers' classes differ, and null is not absent."""
    return heads if kind == "llama" or "num_key_value_heads" in document else {"mistral": 8}.get(kind, 32)


def check_weights(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder, which are those its config.json asks for; SdrrlError names the file otherwise."""
    where = folder / "config.json"
    if not where.is_file():
        raise SdrrlError(f"{folder}: no Hugging Face model here (config.json is missing); see tools/import_gguf.py")
    check_kind(read_json_object(where).get("model_type"), str(where))
    document = read_document(folder)
    found, expected = tensors_of(folder), set()
    for name, shape in expected_shapes(document, str(where)):
        expected.add(name)
        if name not in found:
            hint = "; tie_word_embeddings is not set, so there must be one" if name == OUTPUT else ""
            raise SdrrlError(f"{_likely(folder, found)}: tensor '{name}' is missing{hint}; fetch the model again")
        stored = found[name]
        if stored.shape != shape:
            has, asked = list(stored.shape), list(shape)
            raise SdrrlError(f"{stored.file}: tensor '{name}' is {has}, config.json asks for {asked}")
        if stored.dtype not in DTYPES:
            raise SdrrlError(
                f"{stored.file}: tensor '{name}' has the type {stored.dtype}, only {', '.join(DTYPES)} are served; "
                "quantised weights cannot be trained"
            )
    for name in found:
        if name not in expected and not BUFFERS.search(name) and name != OUTPUT:
            raise SdrrlError(
                f"{found[name].file}: tensor '{name}' is none that a {document['model_type']} of this config.json has"
            )
    if OUTPUT in found and OUTPUT not in expected:
        _check_tied(found[EMBEDDING], found[OUTPUT])
    return {name: tensor for name, tensor in found.items() if name in expected}


def _likely(folder: Path, found: Mapping[str, StoredTensor]) -> Path:
    """What to name for a tensor that is in no file: the one file, or the folder."""
    files = {t.file for t in found.values()}
    return files.pop() if len(files) == 1 else folder


def _check_tied(embedding: StoredTensor, output: StoredTensor) -> None:
    """An output layer beside ``tie_word_embeddings`` must be the embedding: transformers 4 ignores it, 5 uses it."""
    same = (embedding.dtype, embedding.shape) == (output.dtype, output.shape)
    if same:
        with open(embedding.file, "rb") as a, open(output.file, "rb") as b:
            a.seek(embedding.begin)
            b.seek(output.begin)
            left = embedding.end - embedding.begin
            while left and same:
                n = min(left, CHUNK)
                same, left = a.read(n) == b.read(n), left - n
    if not same:
        raise SdrrlError(
            f"{output.file}: '{OUTPUT}' differs from the embeddings, but config.json says tie_word_embeddings; set it "
            "to false, or remove the tensor"
        )


def model_key(folder: Path) -> str:
    """What a model is, wherever its folder lies: the SHA-256 of config.json and of its weight files, as one key."""
    files = [folder / "config.json", *weight_files(folder)]
    with ThreadPoolExecutor(4) as pool:  # hashing leaves the interpreter's lock
        return content_key([[f.name, digest] for f, digest in zip(files, pool.map(sha256_file, files), strict=True)])
