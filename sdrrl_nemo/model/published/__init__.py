"""What a published folder says of a model and what it holds, checked before anything of it is loaded."""
