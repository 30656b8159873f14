-- The cleanup: removes at most `most` expired rows of each table, the oldest first. It passes over rows that somebody
-- works on, so it waits for nobody. Answers a row for each table.
CREATE FUNCTION mcp_cleanup(most integer) RETURNS TABLE (swept text, removed bigint) LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    swept := 'mcp_sessions';
    DELETE FROM mcp_sessions AS held USING (
        SELECT session_id FROM mcp_sessions WHERE expires_at <= moment
        ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ) AS old WHERE held.session_id = old.session_id AND held.expires_at <= moment;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    swept := 'mcp_values';
    DELETE FROM mcp_values AS held USING (
        SELECT key FROM mcp_values WHERE expires_at <= moment
        ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ) AS old WHERE held.key = old.key AND held.expires_at <= moment;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    swept := 'mcp_buckets';
    DELETE FROM mcp_buckets AS held USING (
        SELECT key FROM mcp_buckets WHERE expires_at <= moment
        ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ) AS old WHERE held.key = old.key AND held.expires_at <= moment;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    swept := 'mcp_members';
    DELETE FROM mcp_members AS held USING (
        SELECT key, member FROM mcp_members WHERE expires_at <= moment
        ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ) AS old WHERE held.key = old.key AND held.member = old.member AND held.expires_at <= moment;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;

    swept := 'mcp_claims';
    DELETE FROM mcp_claims AS held USING (
        SELECT key FROM mcp_claims WHERE expires_at <= moment
        ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
    ) AS old WHERE held.key = old.key AND held.expires_at <= moment;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN NEXT;
END $$;
