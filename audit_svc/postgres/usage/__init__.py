"""The sums of sessions, kept in the writer's idle time."""
