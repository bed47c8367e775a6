"""How many small faults the unit tests find: ``python -m tests.mutation --help``."""
