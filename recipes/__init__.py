"""Training recipes: the whole flow, readable top-down."""
