DROP FUNCTION erase_rows(text, bigint[], text[], text, text, bigint);
DROP FUNCTION remove_rows(text, bigint[], text, bigint);
DROP TABLE
    tool_call_log, cost_log, control_log, sessions, session_labels, session_log, producers, producer_gaps, gap_log,
    refusals, recorders, ledger_clock, query_log, pruned, removal_log, erasing, erasure_log, hold_log,
    tool_call_usage_hourly, tool_call_usage_daily, tool_call_usage_32d, request_usage_hourly, request_usage_daily,
    request_usage_32d, session_usage, session_usage_summed, seal_files, seal_runs, seal_entries, seal_producers,
    ledger_writer, ledger_lease;
DROP FUNCTION next_position(text, text);
DROP FUNCTION glob_regex(text);
