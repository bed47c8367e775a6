"""Training recipes: typed configuration and thin entry points; the flow reads top-down."""
