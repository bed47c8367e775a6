"""From an English instruction set to packed Megatron datasets: engines, stages, subsets, packing."""
