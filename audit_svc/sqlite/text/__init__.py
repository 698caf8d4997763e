"""The index that finds texts in tool calls' arguments."""
