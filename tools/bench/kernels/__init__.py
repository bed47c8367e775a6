"""What the loss's benchmarks are made of: cases with references, other projects' formulas, installed kernels."""
