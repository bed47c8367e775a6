"""Engines the stages call, each registered by name and chosen in YAML: translators, judges, readers, generators.

Importing this package registers every engine; their heavy packages are imported when one is first used.
"""

from sdrrl_nemo.data.engines import (
    aligned,
    bergamot,
    cld3,
    comet,
    fasttext,
    freedict,
    gnome_help,
    hf,
    llm_translate,
    muse,
    nemo_checkpoint,
    nllb_ctranslate2,
    nllb_hf,
    openai_server,
    tsv,
    use,
)

__all__ = [
    "aligned",
    "bergamot",
    "cld3",
    "comet",
    "fasttext",
    "freedict",
    "gnome_help",
    "hf",
    "llm_translate",
    "muse",
    "nemo_checkpoint",
    "nllb_ctranslate2",
    "nllb_hf",
    "openai_server",
    "tsv",
    "use",
]
