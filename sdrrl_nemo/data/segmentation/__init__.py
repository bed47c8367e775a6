"""Segmentation of texts for translation: what may be translated, sentence by sentence, and what stays as it is."""

from sdrrl_nemo.data.segmentation.protect import Protected, Sentence, protect, protected_spans
from sdrrl_nemo.data.segmentation.sentences import split_sentences
from sdrrl_nemo.data.segmentation.translator import SegmentedTranslator

__all__ = ["Protected", "SegmentedTranslator", "Sentence", "protect", "protected_spans", "split_sentences"]
