-- The operations of the store. A batch is one call of mcp_run, which is one transaction.
--
-- No deadlock: a batch locks the names of everything it writes before it reads anything, in one order for all, and
-- waits for nothing afterwards. The clock is read once, after that.

CREATE FUNCTION mcp_origin() RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN timestamptz '2026-01-01 00:00:00+00';  -- near, so that a double holds nanoseconds

CREATE FUNCTION mcp_is_session(key text) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN starts_with(key, 'mcp:session:');

CREATE FUNCTION mcp_session_id(key text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN substr(key, length('mcp:session:') + 1);

CREATE FUNCTION mcp_lock(names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    FOR number IN SELECT DISTINCT hashtextextended(name, 0) AS hash FROM unnest(names) AS name ORDER BY hash LOOP
        PERFORM pg_advisory_xact_lock(number);
    END LOOP;
END $$;

-- Values and sessions

CREATE FUNCTION mcp_get(wanted text, moment timestamptz) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    IF mcp_is_session(wanted) THEN
        RETURN (SELECT convert_to(data, 'UTF8') FROM mcp_sessions
                WHERE session_id = mcp_session_id(wanted) AND expires_at > moment);
    END IF;
    RETURN (SELECT value FROM mcp_values WHERE key = wanted AND expires_at > moment);
END $$;

CREATE FUNCTION mcp_take(wanted text, moment timestamptz) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    taken record;
BEGIN
    IF mcp_is_session(wanted) THEN
        DELETE FROM mcp_sessions WHERE session_id = mcp_session_id(wanted)
            RETURNING convert_to(data, 'UTF8') AS value, expires_at INTO taken;
    ELSE
        DELETE FROM mcp_values WHERE key = wanted RETURNING value, expires_at INTO taken;
    END IF;
    RETURN CASE WHEN taken.expires_at > moment THEN taken.value END;
END $$;

CREATE FUNCTION mcp_put_value(
    wanted text, written bytea, until timestamptz, absent boolean, equal bytea, moment timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF equal IS NOT NULL THEN
        UPDATE mcp_values SET value = written, expires_at = until
            WHERE key = wanted AND expires_at > moment AND value = equal;
    ELSE
        INSERT INTO mcp_values (key, value, expires_at) VALUES (wanted, written, until)
            ON CONFLICT (key) DO UPDATE SET value = written, expires_at = until
            WHERE NOT absent OR mcp_values.expires_at <= moment;
    END IF;
    RETURN FOUND;
END $$;

-- A write of a session names the version that it was decided on. When that is gone by the time of the write, because
-- somebody wrote without taking the lock, the decision is made again; after three such losses the batch is refused.
CREATE FUNCTION mcp_put_session(
    wanted text, written text, until timestamptz, absent boolean, equal bytea, moment timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    seen record;
BEGIN
    FOR attempt IN 1..3 LOOP
        SELECT convert_to(data, 'UTF8') AS data, version, expires_at > moment AS alive INTO seen
            FROM mcp_sessions WHERE session_id = wanted;
        IF NOT FOUND THEN
            IF equal IS NOT NULL THEN
                RETURN false;
            END IF;
            INSERT INTO mcp_sessions (session_id, data, expires_at, created_at, updated_at)
                VALUES (wanted, written, until, moment, moment) ON CONFLICT (session_id) DO NOTHING;
        ELSIF (absent AND seen.alive) OR (equal IS NOT NULL AND NOT (seen.alive AND seen.data = equal)) THEN
            RETURN false;
        ELSE
            UPDATE mcp_sessions
                SET data = written, expires_at = until, version = version + 1, updated_at = moment,
                    created_at = CASE WHEN seen.alive THEN created_at ELSE moment END
                WHERE session_id = wanted AND version = seen.version;
        END IF;
        IF FOUND THEN
            RETURN true;
        END IF;
    END LOOP;
    RAISE serialization_failure USING MESSAGE = 'a session was changed by others again and again';
END $$;

CREATE FUNCTION mcp_renew_session(wanted text, prefix bytea, until timestamptz, moment timestamptz)
RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    seen record;
BEGIN
    FOR attempt IN 1..3 LOOP
        SELECT convert_to(data, 'UTF8') AS data, version INTO seen
            FROM mcp_sessions WHERE session_id = wanted AND expires_at > moment;
        IF NOT FOUND OR substring(seen.data FROM 1 FOR length(prefix)) <> prefix THEN
            RETURN seen.data;
        END IF;
        UPDATE mcp_sessions SET expires_at = until, version = version + 1, updated_at = moment
            WHERE session_id = wanted AND version = seen.version;
        IF FOUND THEN
            RETURN seen.data;
        END IF;
    END LOOP;
    RAISE serialization_failure USING MESSAGE = 'a session was changed by others again and again';
END $$;

CREATE FUNCTION mcp_renew(wanted text, prefix bytea, until timestamptz, moment timestamptz)
RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
    renewed bytea;
BEGIN
    IF mcp_is_session(wanted) THEN
        RETURN mcp_renew_session(mcp_session_id(wanted), prefix, until, moment);
    END IF;
    UPDATE mcp_values SET expires_at = until
        WHERE key = wanted AND expires_at > moment AND substring(value FROM 1 FOR length(prefix)) = prefix
        RETURNING value INTO renewed;
    IF NOT FOUND THEN
        RETURN mcp_get(wanted, moment);
    END IF;
    RETURN renewed;
END $$;

-- Buckets: mcp_guard/protocol/gcra.py in SQL, term by term. Answers [allowed, remaining, retry after, reset] for each.
CREATE FUNCTION mcp_spend(asked jsonb, moment timestamptz) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    tick double precision := extract(epoch FROM moment - mcp_origin());
    levels jsonb;
BEGIN
    WITH bucket AS (
        SELECT one.ordinality AS place,
               one.value->>'key' AS key,
               (one.value->>'period')::double precision AS period,
               (one.value->>'period')::double precision / (one.value->>'burst')::double precision AS unit,
               (one.value->>'cost')::double precision AS cost
        FROM jsonb_array_elements(asked) WITH ORDINALITY AS one
    ), begun AS (
        -- Row by row: a join would rather read the whole table, because nobody tells it how few buckets are asked for.
        -- One that is further away than a full bucket can be was written before the clock was set back: it is empty.
        SELECT *, least(
            greatest((SELECT arrival FROM mcp_buckets AS held WHERE held.key = bucket.key), tick), tick + period
        ) AS start
        FROM bucket
    ), finished AS (
        SELECT *, start + unit * cost AS finish, start + unit * cost - tick - period AS wait FROM begun
    ), judged AS (
        SELECT *, wait <= unit * 1e-3 AS allowed, CASE WHEN wait <= unit * 1e-3 THEN finish ELSE start END - tick AS used
        FROM finished
    ), taken AS (
        INSERT INTO mcp_buckets (key, arrival, expires_at)
            SELECT key, finish, mcp_origin() + make_interval(secs => finish) FROM judged
            WHERE (SELECT bool_and(allowed) FROM judged)
            ON CONFLICT (key) DO UPDATE SET arrival = excluded.arrival, expires_at = excluded.expires_at
    )
    SELECT coalesce(jsonb_agg(jsonb_build_array(
            allowed,
            greatest(0, floor((period - used) / unit + 1e-3)),
            CASE WHEN allowed THEN 0 ELSE wait END,
            used
        ) ORDER BY place), '[]') INTO levels FROM judged;
    RETURN levels;
END $$;

-- Sets

CREATE FUNCTION mcp_enter(wanted text, entering text, until timestamptz, most integer, moment timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE mcp_members SET expires_at = until WHERE key = wanted AND member = entering AND expires_at > moment;
    IF FOUND THEN
        RETURN true;
    END IF;
    IF (SELECT count(*) FROM mcp_members WHERE key = wanted AND expires_at > moment) >= most THEN
        RETURN false;
    END IF;
    INSERT INTO mcp_members (key, member, expires_at) VALUES (wanted, entering, until)
        ON CONFLICT (key, member) DO UPDATE SET expires_at = until;
    RETURN true;
END $$;

CREATE FUNCTION mcp_stay(wanted text, staying text, until timestamptz, moment timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE mcp_members SET expires_at = until WHERE key = wanted AND member = staying AND expires_at > moment;
    RETURN FOUND;
END $$;

CREATE FUNCTION mcp_leave(wanted text, leaving text, moment timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    left_at timestamptz;
BEGIN
    DELETE FROM mcp_members WHERE key = wanted AND member = leaving RETURNING expires_at INTO left_at;
    RETURN coalesce(left_at > moment, false);
END $$;

CREATE FUNCTION mcp_inside(wanted text, moment timestamptz) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT coalesce(jsonb_agg(member), '[]') FROM mcp_members WHERE key = wanted AND expires_at > moment);
END $$;

-- Claims

-- What a memory is bound to: this cluster, its timeline (a promoted standby may lack the last claims) and this table
-- (one that was restored from a dump lacks those after it).
CREATE FUNCTION mcp_lineage() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN concat_ws(':', (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8), 'mcp_claims'::regclass::oid);
END $$;

CREATE FUNCTION mcp_memory_began(moment timestamptz) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    here text := mcp_lineage();
    since timestamptz;
BEGIN
    SELECT began INTO since FROM mcp_epoch WHERE lineage = here;
    IF NOT FOUND THEN
        INSERT INTO mcp_epoch (began, lineage) VALUES (moment, here)
            ON CONFLICT (one) DO UPDATE SET began = moment, lineage = here WHERE mcp_epoch.lineage <> here;
        SELECT began INTO STRICT since FROM mcp_epoch WHERE lineage = here;
    END IF;
    RETURN since;
END $$;

CREATE FUNCTION mcp_claim(wanted text, until timestamptz, issued double precision, moment timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF issued < extract(epoch FROM mcp_memory_began(moment))::double precision THEN
        RETURN false;
    END IF;
    INSERT INTO mcp_claims (key, expires_at) VALUES (wanted, until)
        ON CONFLICT (key) DO UPDATE SET expires_at = until WHERE mcp_claims.expires_at <= moment;
    RETURN FOUND;
END $$;

CREATE FUNCTION mcp_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM mcp_epoch;
    RETURN NULL;
END $$;

CREATE TRIGGER mcp_claims_forgotten AFTER TRUNCATE ON mcp_claims EXECUTE FUNCTION mcp_forget();

-- The batch. `operations` is an array of objects with the member `do` and the fields of the operation; a value stands
-- in `blobs` under the number (from 1) that the object gives. `locks` names what is written. `lasting` is false for a
-- batch whose loss in a crash of the server costs nothing but time, and which does not wait for the disk. Answers one
-- row for each operation, in order: a truth, a value, or more.
CREATE FUNCTION mcp_run(operations jsonb, blobs bytea[], locks text[], lasting boolean)
RETURNS TABLE (truth boolean, value bytea, more jsonb) LANGUAGE plpgsql AS $$
DECLARE
    one jsonb;
    key text;
    moment timestamptz;
    until timestamptz;
BEGIN
    IF NOT lasting THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM mcp_lock(locks);
    moment := clock_timestamp();
    FOR one IN SELECT element FROM jsonb_array_elements(operations) AS element LOOP
        truth := NULL;
        value := NULL;
        more := NULL;
        key := one->>'key';
        until := moment + make_interval(secs => (one->>'ttl')::double precision);
        CASE one->>'do'
            WHEN 'get' THEN value := mcp_get(key, moment);
            WHEN 'take' THEN value := mcp_take(key, moment);
            WHEN 'delete' THEN truth := mcp_take(key, moment) IS NOT NULL;
            WHEN 'renew' THEN value := mcp_renew(key, blobs[(one->>'prefix')::integer], until, moment);
            WHEN 'put' THEN
                IF mcp_is_session(key) THEN
                    truth := mcp_put_session(
                        mcp_session_id(key), convert_from(blobs[(one->>'value')::integer], 'UTF8'), until,
                        (one->>'absent')::boolean, blobs[(one->>'equal')::integer], moment);
                ELSE
                    truth := mcp_put_value(
                        key, blobs[(one->>'value')::integer], until,
                        (one->>'absent')::boolean, blobs[(one->>'equal')::integer], moment);
                END IF;
            WHEN 'spend' THEN more := mcp_spend(one->'buckets', moment);
            WHEN 'enter' THEN truth := mcp_enter(key, one->>'member', until, (one->>'limit')::integer, moment);
            WHEN 'stay' THEN truth := mcp_stay(key, one->>'member', until, moment);
            WHEN 'leave' THEN truth := mcp_leave(key, one->>'member', moment);
            WHEN 'members' THEN more := mcp_inside(key, moment);
            WHEN 'claim' THEN truth := mcp_claim(key, until, (one->>'issued')::double precision, moment);
            WHEN 'announce' THEN
                PERFORM pg_notify('mcp_announcements', one->>'payload');
                truth := true;
        END CASE;
        RETURN NEXT;
    END LOOP;
END $$;
