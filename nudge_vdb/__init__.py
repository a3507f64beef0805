"""Fine-tune the vectors of a live collection with NUDGE."""
