"""verify, proof, and seal with its commands."""
