"""Engines that answer questions: y_hat = M(x)."""

from sdrrl_nemo.data.engines.generate import ctranslate2 as ctranslate2
from sdrrl_nemo.data.engines.generate import hf as hf
from sdrrl_nemo.data.engines.generate import nemo_checkpoint as nemo_checkpoint
from sdrrl_nemo.data.engines.generate import openai_server as openai_server
