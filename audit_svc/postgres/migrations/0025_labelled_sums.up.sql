-- named_usage has what all sessions with a label used under the name labelled:KEY, whose value is ''. What those without the label used
-- is all less that, and no more all less the sums of each value.

-- Sums are made anew, since they follow the rows together. Answers count the rows that are not summed yet.
DELETE FROM session_usage;
DELETE FROM named_usage;
DELETE FROM session_traits;
DELETE FROM relabelled;
UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0;
