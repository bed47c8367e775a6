"""Apertium, a rule-based translator: where its programs are, how they are run, and the engine."""

from sdrrl_nemo.data.engines.translate.apertium.engine import ApertiumTranslator as ApertiumTranslator
