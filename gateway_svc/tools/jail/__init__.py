"""What tools are held by: the workspace, the sandbox, limits, and the end of their processes."""
