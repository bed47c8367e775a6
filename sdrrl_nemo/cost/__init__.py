"""What a training step costs in operations, and what GPUs can do; the planner and the run's metrics count with it."""
