"""Every method of the paper's comparison from one base model on one budget: plan, run, compare."""
