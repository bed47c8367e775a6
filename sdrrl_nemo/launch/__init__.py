"""Starting a training run on other machines, through NeMo-Run."""
