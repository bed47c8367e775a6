"""How micro-batches reach a step: made ahead of it, in memory from which a GPU copies by itself."""
