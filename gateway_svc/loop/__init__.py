"""The agent loop: ask the model, run its tools, tell it their results."""
