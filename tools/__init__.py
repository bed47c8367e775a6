"""Command-line entry points: parse, load the configuration, call the library."""
