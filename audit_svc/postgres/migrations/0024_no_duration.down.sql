-- The rollups of these outcomes stay without durations until `audit-svc rebuild-rollups` of the version before makes them again.
DELETE FROM session_usage;
DELETE FROM named_usage;
DELETE FROM session_traits;
DELETE FROM relabelled;
UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0;
