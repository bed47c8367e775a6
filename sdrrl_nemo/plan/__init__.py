"""What a run will need and how well it does: sizes, floating-point operations, GPUs."""
