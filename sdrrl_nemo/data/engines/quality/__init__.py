"""Reference-free estimates of translation quality."""

from sdrrl_nemo.data.engines.quality import comet, use

__all__ = ["comet", "use"]
