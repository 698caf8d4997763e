"""Who remembers the log outside of it: witnesses that cosign, and what the operator hands checkpoints to."""
