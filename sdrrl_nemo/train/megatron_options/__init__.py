"""Megatron-core's options for memory and speed: keys, what is refused, how the model and the trainer get them."""
