"""Two ways to write the same file, as versions of transformers do: read here into one meaning."""
