"""Arbitrary and damaged input for all that reads a file, a pipe or a server's reply (docs/testing.md, Fuzzing)."""
