"""The one seam to NeMo: strategy, data module, Eq. 6 loss, checkpoints, CPU adaptation."""
