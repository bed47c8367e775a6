"""``sdrrl doctor``: what is installed and what the machine has (``machine``, ``packages``, ``probes``), what will run
with it and what will not (``verdicts``), in text without names of people, machines or their folders (``text``)."""
