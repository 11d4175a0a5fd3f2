"""What the scripts in ``train/`` share: a small model from scratch, the collator with jitter, losses, callbacks."""
