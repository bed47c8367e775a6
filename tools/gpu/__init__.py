"""What ``tools/gpu_check.py`` is made of: inputs made up by name, training with each kind of layers, peers."""
