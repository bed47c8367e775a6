"""Benchmarks: measurements that docs/ and docs/results/ are made of, run by hand."""
