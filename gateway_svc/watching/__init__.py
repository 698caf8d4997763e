"""Observes turns, steps and tool calls: metrics, traces, health."""
