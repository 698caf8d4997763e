-- A call that did not run, or of which nobody knows when it ended, has no duration: it is in no histogram any more.
UPDATE tool_call_usage_hourly SET durations = x'01' WHERE outcome IN ('denied', 'interrupted', 'invalid_call', 'dry_run');
UPDATE tool_call_usage_daily SET durations = x'01' WHERE outcome IN ('denied', 'interrupted', 'invalid_call', 'dry_run');
UPDATE tool_call_usage_32d SET durations = x'01' WHERE outcome IN ('denied', 'interrupted', 'invalid_call', 'dry_run');

-- Sums that are not kept by outcome are made anew. Answers count the rows that are not summed yet.
DELETE FROM session_usage;
DELETE FROM named_usage;
DELETE FROM session_traits;
DELETE FROM relabelled;
UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0;
