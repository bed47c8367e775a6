"""Heuristic filters of translations, one class each, registered by name; thresholds come from YAML.

They follow the kinds of rules that the paper takes from Zeng et al. 2021 (WeChat's systems of WMT21, data filtering):
length, length ratio, repetition, copies, script and character ratio, markup, mismatched punctuation, digits and URLs,
duplicates. The default thresholds are this project's own: an answer to an instruction has lines, lists and code, unlike
the single sentences of news that systems of WMT translate.

=======================  =============================================================================================
name                     rejects
=======================  =============================================================================================
``length``               too short, too long, or with an overlong word
``length_ratio``         translation much shorter or longer than its source
``repetition``           repeated n-grams
``repeated_characters``  one character many times in a row
``repeated_sentences``   one sentence many times
``copy``                 source left untranslated
``echo``                 an answer that only says its question again (judged with the question, before translation)
``script``               letters of another script than the language's
``character_ratio``      fewer letters (more signs) than the source
``numbers``              numbers lost or made up, compared by value as each language writes them
``punctuation``          question marks, brackets or lines lost or made up
``urls``                 URLs or e-mail addresses lost, changed or made up
``code``                 code lost, or changed beyond its strings and comments
``markup``               HTML tags or entities that the source has not
``control``              control characters, broken Unicode, text decoded with the wrong encoding
=======================  =============================================================================================

`Duplicate` compares rows with each other, so it is no `Filter`: see its module.
"""

from sdrrl_nemo.data.filters.base import FILTERS, Filter, TextPair, make_filters
from sdrrl_nemo.data.filters.copies import Copy
from sdrrl_nemo.data.filters.duplicates import Duplicate, text_key
from sdrrl_nemo.data.filters.echoes import Echo, answer_alone
from sdrrl_nemo.data.filters.garbage import Control, Markup
from sdrrl_nemo.data.filters.kept_code import Code
from sdrrl_nemo.data.filters.lengths import Length, LengthRatio
from sdrrl_nemo.data.filters.marks import Punctuation, Urls
from sdrrl_nemo.data.filters.number_matching import Numbers
from sdrrl_nemo.data.filters.repeats import RepeatedCharacters, RepeatedSentences, Repetition
from sdrrl_nemo.data.filters.scripts import CharacterRatio, Script, script_share

__all__ = [
    "FILTERS",
    "CharacterRatio",
    "Code",
    "Control",
    "Copy",
    "Duplicate",
    "Echo",
    "Filter",
    "Length",
    "LengthRatio",
    "Markup",
    "Numbers",
    "Punctuation",
    "RepeatedCharacters",
    "RepeatedSentences",
    "Repetition",
    "Script",
    "TextPair",
    "Urls",
    "answer_alone",
    "make_filters",
    "script_share",
    "text_key",
]
