"""The text index of tool calls' arguments."""
