"""Benchmarks beside the paper's; importing this package registers them all."""

from sdrrl_nemo.eval.suites.further import arena_hard as arena_hard
from sdrrl_nemo.eval.suites.further import four_options as four_options
from sdrrl_nemo.eval.suites.further import language_confusion as language_confusion
from sdrrl_nemo.eval.suites.further import mgsm as mgsm
from sdrrl_nemo.eval.suites.further import multiloko as multiloko
