"""Studies of what preprocessing's judges make of translations; no stage of a run uses them."""
