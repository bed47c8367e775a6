"""What happens beside the steps, as Lightning callbacks: checkpoints, held-out loss, metrics, adapters."""
