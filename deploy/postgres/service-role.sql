-- The rights of audit-svc's own user, for the owner of the ledger's database, after `audit-svc migrate up`; run it again
-- after each upgrade that migrated. Then: GRANT onrecord_service TO the user that the service connects as.
--
--     psql -d postgresql://owner@host/ledger -f service-role.sql
--
-- To the logs it may only add: it removes and erases rows by two functions, which put on the record what they did.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'onrecord_service') THEN
        CREATE ROLE onrecord_service NOLOGIN;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO onrecord_service;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO onrecord_service;
GRANT INSERT ON
    tool_call_log, cost_log, control_log, session_log, query_log, gap_log, hold_log
TO onrecord_service;
GRANT EXECUTE ON FUNCTION
    remove_rows(text, bigint[], text, bigint), erase_rows(text, bigint[], text[], text, text, bigint)
TO onrecord_service;
GRANT UPDATE ON ledger_writer, ledger_lease, erasing, session_usage_summed TO onrecord_service;
GRANT INSERT, UPDATE ON producers, recorders, ledger_clock, pruned TO onrecord_service;
GRANT INSERT, UPDATE, DELETE ON
    sessions, session_labels, producer_gaps, refusals, session_usage,
    named_usage, session_traits, relabelled,
    tool_call_usage_hourly, tool_call_usage_daily, tool_call_usage_32d,
    request_usage_hourly, request_usage_daily, request_usage_32d,
    seal_files, seal_runs, seal_entries, seal_producers
TO onrecord_service;
