"""Before the first stage: whether everything that the run needs is there, and what the run will be."""
