-- What CockroachDB is told in other words than PostgreSQL, in named blocks; every other block of ours it takes as it stands. It has
-- no locks of tables, no advisory locks, no process of a session's own, and keeps its internals closed: pg_catalog is all we read.

-- name: introduce
SELECT true, NULL

-- name: reset_session
-- Sent by itself.
DISCARD ALL

-- name: identity
-- Which cluster it is, its closed internals would tell; where we found it has to do.
SELECT :place, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::INT8, split_part(version(), ' ', 3)

-- name: hold_history

-- name: hold_journal

-- name: hold_lock

-- name: read_strangers
-- A trigger of theirs runs with the rights of whoever owns it.
SELECT NULL, NULL, NULL, NULL WHERE false

-- name: refuse_strangers

-- name: inspect
SELECT n.nspname, c.relname,
       (SELECT array_agg(a.attname::TEXT ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       NULL::TEXT, current_user::TEXT, c.relkind::TEXT
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname IN ('schema_migrations', 'schema_migrations_journal', 'schema_migrations_lock')
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND (n.nspname = :schema OR n.nspname = ANY (current_schemas(false)))
ORDER BY n.nspname = :schema DESC, n.nspname, c.relname

-- name: read_marks
-- Rows have no version that could be read without the internals, so all of them are looked at.
SELECT current_database()::TEXT, held.renewed_at::TEXT, held.fence,
       concat_ws('|', held.owner::TEXT, coalesce(held.environment, '-'), coalesce(held.database_name, '-'), held.repository),
       current_setting('transaction_read_only'), version(),
       current_schemas(false)::TEXT,
       (SELECT md5(coalesce(string_agg(concat_ws('|', row.version::TEXT, row.name, row.checksum, row.status, row.direction,
                                                 row.token_checksum, row.down_checksum, (row.down_script IS NULL)::TEXT,
                                                 row.transactional::TEXT, row.irreversible::TEXT, coalesce(row.git_revision, '-'),
                                                 row.statements_done::TEXT,
                                                 row.statements_total::TEXT, row.statements_digest, row.intent_digest,
                                                 row.intent_object, row.intent_before), '/' ORDER BY row.version), ''))
        FROM {history} AS row)
FROM {lock} AS held WHERE held.id = 1

-- name: read_server
SELECT current_setting('transaction_read_only') = 'on'

-- name: read_lock
SELECT environment, database_name, repository, owner, holder, mode, extract(epoch FROM since)::FLOAT8,
       (mode = 'lease' AND expires_at > now()), false
FROM {lock} WHERE id = 1

-- name: create_tables
-- Each by itself: a change of the schema is a transaction of its own.
CREATE TABLE IF NOT EXISTS {history} (
    version BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT now(),
    checksum VARCHAR(64) NOT NULL,
    execution_time_ms INTEGER,
    status VARCHAR(20) DEFAULT 'success',
    error_message TEXT
);
ALTER TABLE {history}
    ADD COLUMN IF NOT EXISTS direction VARCHAR(4) NOT NULL DEFAULT 'up',
    ADD COLUMN IF NOT EXISTS path TEXT,
    ADD COLUMN IF NOT EXISTS token_checksum VARCHAR(64),
    ADD COLUMN IF NOT EXISTS down_script TEXT,
    ADD COLUMN IF NOT EXISTS down_checksum VARCHAR(64),
    ADD COLUMN IF NOT EXISTS down_first_line BIGINT,
    ADD COLUMN IF NOT EXISTS transactional BOOLEAN NOT NULL DEFAULT true,
    ADD COLUMN IF NOT EXISTS no_transaction BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS irreversible BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS lock_timeout DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS statement_timeout DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS statements_done BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS statements_total BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS statements_digest VARCHAR(64),
    ADD COLUMN IF NOT EXISTS intent_digest VARCHAR(64),
    ADD COLUMN IF NOT EXISTS intent_object TEXT,
    ADD COLUMN IF NOT EXISTS intent_before VARCHAR(10),
    ADD COLUMN IF NOT EXISTS git_revision VARCHAR(64),
    ADD COLUMN IF NOT EXISTS tool_version VARCHAR(32);
CREATE TABLE IF NOT EXISTS {journal} (
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    attempt UUID NOT NULL,
    event VARCHAR(20) NOT NULL,
    version BIGINT,
    name VARCHAR(255),
    direction VARCHAR(4),
    outcome VARCHAR(20),
    script_source VARCHAR(20),
    script_digest VARCHAR(64),
    policy_digest VARCHAR(64),
    execution_time_ms BIGINT,
    reason VARCHAR(64),
    message TEXT,
    remedy TEXT,
    sqlstate VARCHAR(5),
    path TEXT,
    line BIGINT,
    column_number BIGINT,
    excerpt TEXT,
    statement_index BIGINT,
    blockers TEXT,
    artefact TEXT,
    git_revision VARCHAR(64),
    git_author TEXT,
    environment TEXT,
    database_name TEXT,
    verb VARCHAR(20),
    os_user TEXT,
    database_user TEXT NOT NULL DEFAULT session_user,
    host TEXT,
    pid BIGINT,
    tool_version VARCHAR(32),
    fence BIGINT,
    PRIMARY KEY (recorded_at, id)
);
CREATE TABLE IF NOT EXISTS {lock} (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    owner UUID,
    holder TEXT,
    mode VARCHAR(10),
    fence BIGINT NOT NULL,
    since TIMESTAMPTZ,
    renewed_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ,
    environment TEXT,
    database_name TEXT,
    repository TEXT
);
REVOKE ALL ON {history}, {journal}, {lock} FROM PUBLIC

-- name: take_lease
-- That nothing of an owner before us goes on is seen to before: its jobs have ended. :taking_over leaves the claim as it is, whoever
-- the database belongs to.
INSERT INTO {lock} AS held (id, owner, holder, mode, fence, since, renewed_at, expires_at, environment, database_name, repository)
VALUES (1, :owner, :holder, 'lease', 1, now(), now(), now() + :seconds * INTERVAL '1 second',
        CASE WHEN NOT :taking_over THEN :environment::TEXT END, CASE WHEN NOT :taking_over THEN :database_name::TEXT END,
        CASE WHEN NOT :taking_over THEN :repository::TEXT END)
ON CONFLICT (id) DO UPDATE
SET owner = excluded.owner, holder = excluded.holder, mode = excluded.mode, fence = held.fence + 1, since = excluded.since,
    renewed_at = excluded.renewed_at, expires_at = excluded.expires_at,
    environment = CASE WHEN :taking_over THEN held.environment ELSE excluded.environment END,
    database_name = CASE WHEN :taking_over THEN held.database_name ELSE excluded.database_name END,
    repository = CASE WHEN :taking_over THEN held.repository ELSE excluded.repository END
WHERE (held.owner IS NULL OR held.expires_at IS NULL OR held.expires_at < now())
  AND (:taking_over OR held.environment IS NULL
       OR (held.environment IS NOT DISTINCT FROM excluded.environment
           AND held.database_name IS NOT DISTINCT FROM excluded.database_name
           AND held.repository IS NOT DISTINCT FROM excluded.repository))
RETURNING fence

-- name: own_lease
SELECT fence FROM {lock} WHERE id = 1 AND owner = :owner AND mode = 'lease' AND expires_at > now()

-- name: renew_lease
UPDATE {lock} SET renewed_at = now(), expires_at = now() + :seconds * INTERVAL '1 second'
WHERE id = 1 AND owner = :owner AND fence = :fence AND mode = 'lease'
RETURNING fence

-- name: hold_while_working

-- name: working_process
SELECT NULL WHERE false

-- name: read_work
-- The attempt that was begun under the lease as it is held now and has not ended.
SELECT 0, begun.version, begun.name, begun.direction, begun.script_source, extract(epoch FROM begun.recorded_at)::FLOAT8,
       NOT EXISTS (SELECT 1 FROM {history} AS row WHERE row.version = begun.version AND row.status = 'running')
FROM (SELECT * FROM {journal} ORDER BY recorded_at DESC, id DESC LIMIT 50) AS begun
WHERE begun.event = 'started' AND begun.version > 0 AND begun.direction IN ('up', 'down')
  AND begun.fence = (SELECT fence FROM {lock} WHERE id = 1 AND owner IS NOT NULL AND mode = 'lease' AND expires_at > now())
  AND NOT EXISTS (SELECT 1 FROM {journal} AS ended WHERE ended.recorded_at >= begun.recorded_at
                  AND ended.attempt = begun.attempt AND ended.event = 'finished')
ORDER BY begun.recorded_at DESC LIMIT 1

-- name: lock_session
-- A lease is held by no session.
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE false

-- name: lock_row
SELECT coalesce(holder, owner::TEXT, ''), coalesce(mode, ''), extract(epoch FROM since)::FLOAT8, extract(epoch FROM renewed_at)::FLOAT8,
       coalesce(mode = 'lease' AND expires_at > now(), false), fence
FROM {lock} WHERE id = 1

-- name: resolve_relation
-- Where :name is, or will be.
SELECT coalesce((SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = to_regclass(:name)::OID),
                CASE WHEN :qualified THEN :name ELSE quote_ident(current_schema()) || '.' || :name END)

-- name: indexes_of
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname),
       (SELECT coalesce(string_agg(i.indexrelid::TEXT, ','), '') FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(:table)::OID

-- name: state_of_unnamed
SELECT CASE WHEN count(*) = 0 THEN 'absent' ELSE 'valid' END
FROM pg_catalog.pg_index i WHERE i.indrelid = to_regclass(:table)::OID
  AND NOT i.indexrelid::TEXT = ANY (string_to_array(:known, ','))

-- name: state_of_relation
SELECT CASE WHEN to_regclass(:name) IS NULL THEN 'absent' ELSE 'valid' END

-- name: state_of_index_of
-- Names of indexes are unique in their table.
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                         WHERE i.indrelid = to_regclass(:of)::OID AND c.relname = :name) THEN 'valid' ELSE 'absent' END

-- name: state_of_index_anywhere
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                         WHERE c.relkind = 'i' AND c.relname = :name AND n.nspname = :schema) THEN 'valid' ELSE 'absent' END

-- name: state_of_column
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = to_regclass(:of)::OID AND a.attname = :name
                         AND a.attnum > 0 AND NOT a.attisdropped) THEN 'valid' ELSE 'absent' END

-- name: state_of_constraint
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = to_regclass(:of)::OID AND c.conname = :name)
            THEN 'valid' ELSE 'absent' END

-- name: state_of_trigger
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = to_regclass(:of)::OID AND t.tgname = :name)
            THEN 'valid' ELSE 'absent' END

-- name: state_of_policy
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = to_regclass(:of)::OID AND p.polname = :name)
            THEN 'valid' ELSE 'absent' END

-- name: state_of_type
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                         WHERE t.typname = :name AND n.nspname = :schema) THEN 'valid' ELSE 'absent' END

-- name: state_of_value
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
                         JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                         WHERE e.enumlabel = :name AND t.typname = :type AND n.nspname = :schema) THEN 'valid' ELSE 'absent' END

-- name: state_of_function
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                         WHERE p.proname = :name AND n.nspname = :schema) THEN 'valid' ELSE 'absent' END

-- name: state_of_schema
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = :name) THEN 'valid' ELSE 'absent' END

-- name: state_of_role
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :name) THEN 'valid' ELSE 'absent' END

-- name: schema_changes
-- Running ones, and those of the last twelve hours.
SHOW JOBS

-- name: reached
-- What a commit that nobody knows the end of has left on record.
SELECT status, statements_done FROM {history} WHERE version = :version
