"""The agent loop: ask the model, run its tools, return their results."""
