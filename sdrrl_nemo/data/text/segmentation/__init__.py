"""Segmentation of texts for translation: what may be translated, sentence by sentence, and what stays as it is."""

from sdrrl_nemo.data.text.segmentation.protect import REVISION, Protected, Sentence, protect, protected_spans
from sdrrl_nemo.data.text.segmentation.sentences import split_sentences

__all__ = ["REVISION", "Protected", "Sentence", "protect", "protected_spans", "split_sentences"]
