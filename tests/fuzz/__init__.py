"""Arbitrary and damaged input for everything that reads a file, a pipe or a server's reply (docs/testing.md, Fuzzing)."""
