"""Who hears of turns, steps and tool calls: metrics, traces, health."""
