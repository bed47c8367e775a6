"""Reference-free estimates of translation quality."""

from sdrrl_nemo.data.engines.quality import comet as comet
from sdrrl_nemo.data.engines.quality import metricx as metricx
from sdrrl_nemo.data.engines.quality import openai_judge as openai_judge
from sdrrl_nemo.data.engines.quality import use as use
