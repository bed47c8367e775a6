"""Loss kernels: one file per direction, torch reference beside it."""
