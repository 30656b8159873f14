-- The tables of the store. Every row expires; an expired row is absent to every query, swept or not.
-- Keys are ASCII and compared as bytes, whatever the locale of the database.

CREATE TABLE mcp_sessions (
    session_id text COLLATE "C" PRIMARY KEY,  -- the key without its prefix mcp:session:
    data       text        NOT NULL,          -- JSON
    version    bigint      NOT NULL DEFAULT 1,  -- counts the writes; a write names the version it has read
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX mcp_sessions_expiry ON mcp_sessions (expires_at);

CREATE TABLE mcp_values (
    key        text COLLATE "C" PRIMARY KEY,
    value      bytea       NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX mcp_values_expiry ON mcp_values (expires_at);

CREATE TABLE mcp_buckets (
    key        text COLLATE "C" PRIMARY KEY,
    arrival    double precision NOT NULL,  -- when the bucket is full again, in seconds since mcp_origin()
    expires_at timestamptz      NOT NULL
);
CREATE INDEX mcp_buckets_expiry ON mcp_buckets (expires_at);

CREATE TABLE mcp_members (
    key        text COLLATE "C",
    member     text COLLATE "C",
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (key, member)
);
CREATE INDEX mcp_members_expiry ON mcp_members (expires_at);

CREATE TABLE mcp_claims (
    key        text COLLATE "C" PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX mcp_claims_expiry ON mcp_claims (expires_at);

-- Since when claims are remembered. One row at most: without it, and under another lineage, memory begins anew.
CREATE TABLE mcp_epoch (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    began   timestamptz NOT NULL,
    lineage text        NOT NULL
);

-- The last runs of the cleanup.
CREATE TABLE mcp_cleanup_runs (
    run      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    removed  jsonb       NOT NULL  -- rows removed, by table
);
