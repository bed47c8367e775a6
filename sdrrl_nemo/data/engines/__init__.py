"""Engines the stages call, each registered by name and chosen in YAML: translators, judges, readers, generators."""
