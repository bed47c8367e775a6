"""The paper's benchmarks and analyses on a Hugging Face folder."""
