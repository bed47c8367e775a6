"""Scores of the paper's benchmarks, each equal to the benchmark's official scorer (docs/scorers.md).

One module a benchmark; ``score_item`` scores one text, ``corpus_score`` a list of them. Languages are ISO 639-3 codes
(sdrrl_nemo/data/text/languages.py), scores of one item lie in 0 to 1 and scores of a corpus in 0 to 100 as the paper
prints.
"""
