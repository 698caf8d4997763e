"""What operators see of a service: logs, metrics, and the trace that a call belongs to."""
