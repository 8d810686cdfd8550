-- Every statement we send to PostgreSQL, in named blocks. `{history}`, `{journal}`, `{lock}` stand for our tables in `{schema}`, always
-- schema-qualified, since a migration may change the search path; `:name` stands for an escaped literal.

-- name: set_role
-- `NONE` is the login role.
SET ROLE {role}

-- name: set_local_role
SET LOCAL ROLE {role}

-- name: introduce
-- Whether it is the very process we have connected to, :pid, that serves us, and no older than our connection, :age seconds: a pooler
-- gives us processes that others use as well. Only our own is given settings, and in this very statement: one round trip less.
WITH server AS MATERIALIZED (
    SELECT served.pid = :pid AND pg_catalog.clock_timestamp() - served.backend_start < pg_catalog.make_interval(secs => :age) AS direct
    FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS served
)
SELECT direct, CASE WHEN direct THEN pg_catalog.concat({settings}) END FROM server

-- name: introduce_setting
pg_catalog.set_config(:name, :value, false)

-- name: reset_session
-- Every step of DISCARD ALL except pg_advisory_unlock_all, which would drop our lock.
CLOSE ALL;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
DEALLOCATE ALL;
UNLISTEN *;
DISCARD PLANS;
DISCARD TEMPORARY;
DISCARD SEQUENCES

-- name: identity
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system())::text,
       (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())::bigint,
       pg_catalog.current_setting('server_version')

-- name: trusted
-- A condition, on a row c of pg_class: its owner may do already what we may. Whoever owns a table can have any code of theirs run with
-- the rights of all who write to it. A superuser is a member of every role, which says nothing of these.
EXISTS (SELECT FROM pg_catalog.pg_roles we, pg_catalog.pg_roles owner
        WHERE we.rolname = current_user AND owner.oid = c.relowner
          AND (owner.oid = we.oid OR owner.rolsuper OR NOT we.rolsuper AND pg_catalog.pg_has_role(owner.oid, 'USAGE')
               OR owner.oid = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())))

-- name: hold_history
-- Nobody puts another table into its place while it is looked at and then read.
LOCK TABLE {history} IN ACCESS SHARE MODE

-- name: hold_journal
LOCK TABLE {journal} IN ACCESS SHARE MODE

-- name: hold_lock
LOCK TABLE {lock} IN ACCESS SHARE MODE

-- name: read_strangers
-- Which of our tables belong to somebody we do not trust, and whether we may write into them. Reading a plain table runs no code of its owner's, as long as policies of
-- rows are off; a view does, so this divides by zero when there is one.
SET LOCAL row_security = off;
SELECT c.relname, pg_catalog.pg_get_userbyid(c.relowner), current_user::text, 1 / (c.relkind = 'r')::int,
       pg_catalog.has_table_privilege(c.oid, 'INSERT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname IN ('schema_migrations', 'schema_migrations_journal', 'schema_migrations_lock')
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = {schema_name} AND NOT {trusted}
ORDER BY c.relname

-- name: refuse_strangers
-- Divides by zero when one of our tables belongs to somebody we do not trust: they were faster.
SELECT 1 / (count(*) = 0)::int
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname IN ('schema_migrations', 'schema_migrations_journal', 'schema_migrations_lock')
  AND n.nspname = {schema_name} AND NOT {trusted}

-- name: hold_journal_for_writing
-- Nobody gives the table a trigger, a rule or a default from now on.
LOCK TABLE {journal} IN ROW EXCLUSIVE MODE

-- name: hold_lock_for_writing
LOCK TABLE {lock} IN ROW EXCLUSIVE MODE

-- name: refuse_active
-- Divides by zero when writing into table :name could run code of somebody whom we do not trust. It runs none, whoever it belongs to,
-- while the table has only what we give to it: types of the server's own, our defaults and our check, and no trigger, rule, policy,
-- child or index over anything but columns. Not even the server's own functions are harmless: some run what they are given.
SELECT 1 / (count(*) = 0)::int
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = :name AND n.nspname = {schema_name} AND NOT {trusted}
  AND (c.relkind <> 'r' OR c.relrowsecurity OR c.reloftype <> 0
       OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid)
       OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid)
       OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
       OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
       OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND a.atttypid NOT IN (SELECT t.oid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace own ON own.oid = t.typnamespace
                                         WHERE own.nspname = 'pg_catalog' AND t.typtype = 'b'))
       OR EXISTS (SELECT FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid AND pg_catalog.pg_get_expr(d.adbin, d.adrelid)
                  NOT IN ('clock_timestamp()', 'gen_random_uuid()', 'SESSION_USER'))
       OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype NOT IN ('p', 'n')
                  AND pg_catalog.pg_get_constraintdef(k.oid) <> 'CHECK ((id = 1))'))

-- name: inspect
-- All relations that have the name of one of ours: in our schema or where the search path would find them. And of those whose owner we
-- do not trust, who that is, who we are, what kind of relation it is, and whether we may write into it.
SELECT n.nspname, c.relname,
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       CASE WHEN NOT {trusted} THEN pg_catalog.pg_get_userbyid(c.relowner) END, current_user::text, c.relkind::text,
       pg_catalog.has_table_privilege(c.oid, 'INSERT')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname IN ('schema_migrations', 'schema_migrations_journal', 'schema_migrations_lock')
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND (n.nspname = :schema OR n.nspname = ANY (pg_catalog.current_schemas(false)))
ORDER BY n.nspname = :schema DESC, n.nspname, c.relname

-- name: read_marks
-- Equal answers mean that nothing has changed, in this very database: every write of ours changes the lock's row, and one by
-- hand changes the history's (a changed row has a higher xmin than any before it, and a deleted one is no longer counted).
-- One statement, since it is all that a quiet database is asked. A second table that the search path finds behind ours is seen when
-- all is read again. The last column is the history's alone: the sum of its xmin, by way of ages, since those are numbers already and
-- xmin would have to become text first.
SELECT pg_catalog.current_database()::text, renewed_at::text, held.xmin::text,
       pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only')::boolean,
       pg_catalog.current_setting('server_version'), pg_catalog.current_schemas(false)::text,
       pg_catalog.to_regclass('schema_migrations')::oid,
       (SELECT ROW (count(*), count(*) * (held.xmin::text::bigint + pg_catalog.age(held.xmin)) - sum(pg_catalog.age(row.xmin)))::text
        FROM {history} AS row)
FROM {lock} AS held WHERE id = 1

-- name: read_server
SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only')::boolean

-- name: read_elsewhere
SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'schema_migrations' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname <> :schema AND n.nspname = ANY (pg_catalog.current_schemas(false))
LIMIT 1

-- name: read_lock
SELECT environment, database_name, repository, owner, holder, mode,
       extract(epoch FROM since)::float8,
       (mode = 'lease' AND expires_at > pg_catalog.clock_timestamp()),
       EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
               AND l.classid = :key_high AND l.objid = :key_low
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
FROM {lock} WHERE id = 1

-- name: read_last_attempt
-- The last column is read only so that a journal of an earlier version, which has it not, is told from one of this version.
SELECT event, outcome, version, direction, script_digest, policy_digest, reason, message, remedy, path, line, column_number,
       excerpt, sqlstate, statement_index, extract(epoch FROM recorded_at)::float8, artefact
FROM {journal} WHERE event IN ('finished', 'retry', 'repair', 'baseline') ORDER BY recorded_at DESC, id DESC LIMIT 1

-- name: read_history
SELECT version, name, coalesce(status, 'success'), direction, checksum, token_checksum, down_checksum, down_script IS NOT NULL,
       transactional, irreversible, statements_done, statements_total, statements_digest, git_revision,
       intent_digest, intent_object, intent_before
FROM {history} ORDER BY version

-- name: read_earlier_history
-- As read_history. A column that an earlier version of this program did not make yet is NULL by way of JSON.
SELECT version, name, coalesce(status, 'success'), direction, checksum, token_checksum, down_checksum, down_script IS NOT NULL,
       transactional, irreversible, statements_done, statements_total, statements_digest, git_revision,
       pg_catalog.to_jsonb(row) ->> 'intent_digest', pg_catalog.to_jsonb(row) ->> 'intent_object',
       pg_catalog.to_jsonb(row) ->> 'intent_before'
FROM {history} AS row ORDER BY version

-- name: read_adoptable_history
SELECT version, name, coalesce(status, 'success'), 'up', checksum, NULL, NULL, false, true, false, 0, 0, NULL, NULL, NULL, NULL, NULL
FROM {history} ORDER BY version

-- name: read_applied
SELECT version, name, extract(epoch FROM applied_at)::float8, checksum, execution_time_ms, coalesce(status, 'success'), direction, error_message, git_revision
FROM {history} WHERE :version IS NULL OR version = :version::bigint ORDER BY version

-- name: read_adoptable_applied
SELECT version, name, extract(epoch FROM applied_at)::float8, checksum, execution_time_ms, coalesce(status, 'success'), 'up', error_message, NULL
FROM {history} WHERE :version IS NULL OR version = :version::bigint ORDER BY version

-- name: read_stored_downs
SELECT version, down_script, path, down_first_line, down_checksum, no_transaction, lock_timeout, statement_timeout
FROM {history} WHERE down_script IS NOT NULL AND version IN ({versions})

-- name: read_journal
-- Within a microsecond, the end of one step stands before the beginning of the next. A column that a journal of an earlier version
-- has not is NULL by way of JSON. To the story of one migration belong the hooks of the runs that attempted it, and an `unlock` that
-- ended such a run.
SELECT * FROM (
    SELECT extract(epoch FROM recorded_at)::float8, attempt::text, event, version, direction, outcome, reason, message,
           name, script_source, remedy, path, line, column_number, excerpt, sqlstate, statement_index, execution_time_ms,
           git_revision, git_author, environment, database_name, verb, os_user, database_user, host, pid, tool_version,
           pg_catalog.to_jsonb(journal) ->> 'blockers', pg_catalog.to_jsonb(journal) ->> 'artefact', id
    FROM {journal} AS journal WHERE :version IS NULL OR version = :version::bigint
       OR event IN ('hook', 'unlock')
          AND fence IN (SELECT begun.fence FROM {journal} AS begun WHERE begun.version = :version::bigint AND begun.event = 'started')
    ORDER BY recorded_at DESC, id DESC LIMIT :limit
) newest ORDER BY 1, event = 'started', id

-- name: schema_exists
-- CREATE SCHEMA IF NOT EXISTS asks for the privilege to create one even when there is nothing to create.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = :schema)

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS {schema}

-- name: create_tables
CREATE TABLE IF NOT EXISTS {history} (
    version BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT current_timestamp,
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
    ADD COLUMN IF NOT EXISTS down_first_line INTEGER,
    ADD COLUMN IF NOT EXISTS transactional BOOLEAN NOT NULL DEFAULT true,
    ADD COLUMN IF NOT EXISTS no_transaction BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS irreversible BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS lock_timeout DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS statement_timeout DOUBLE PRECISION,
    ADD COLUMN IF NOT EXISTS statements_done INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS statements_total INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS statements_digest VARCHAR(64),
    ADD COLUMN IF NOT EXISTS intent_digest VARCHAR(64),
    ADD COLUMN IF NOT EXISTS intent_object TEXT,
    ADD COLUMN IF NOT EXISTS intent_before VARCHAR(10),
    ADD COLUMN IF NOT EXISTS git_revision VARCHAR(64),
    ADD COLUMN IF NOT EXISTS tool_version VARCHAR(32);
CREATE TABLE IF NOT EXISTS {journal} (
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    id UUID NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    attempt UUID NOT NULL,
    event VARCHAR(20) NOT NULL,
    version BIGINT,
    name VARCHAR(255),
    direction VARCHAR(4),
    outcome VARCHAR(20),
    script_source VARCHAR(20),
    script_digest VARCHAR(64),
    policy_digest VARCHAR(64),
    execution_time_ms INTEGER,
    reason VARCHAR(64),
    message TEXT,
    remedy TEXT,
    sqlstate VARCHAR(5),
    path TEXT,
    line INTEGER,
    column_number INTEGER,
    excerpt TEXT,
    statement_index INTEGER,
    git_revision VARCHAR(64),
    git_author TEXT,
    environment TEXT,
    database_name TEXT,
    verb VARCHAR(20),
    os_user TEXT,
    database_user TEXT NOT NULL DEFAULT session_user,
    host TEXT,
    pid INTEGER,
    tool_version VARCHAR(32),
    fence BIGINT,
    PRIMARY KEY (recorded_at, id)
);
ALTER TABLE {journal}
    ADD COLUMN IF NOT EXISTS blockers TEXT,
    ADD COLUMN IF NOT EXISTS artefact TEXT;
CREATE TABLE IF NOT EXISTS {lock} (
    id INTEGER PRIMARY KEY CHECK (id = 1),
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

-- name: try_advisory_lock
SELECT pg_catalog.pg_try_advisory_lock(:key)

-- name: release_advisory_lock
-- Ours, and any that a migration took and forgot.
SELECT pg_catalog.pg_advisory_unlock_all()

-- name: take_lock_row
INSERT INTO {lock} AS held (id, owner, holder, mode, fence, since, renewed_at, environment, database_name, repository)
VALUES (1, :owner, :holder, 'advisory', 1, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp(), :environment, :database_name, :repository)
ON CONFLICT (id) DO UPDATE
SET owner = excluded.owner, holder = excluded.holder, mode = excluded.mode, fence = held.fence + 1, since = excluded.since,
    renewed_at = excluded.renewed_at, expires_at = NULL,
    environment = excluded.environment, database_name = excluded.database_name, repository = excluded.repository
WHERE (held.mode IS DISTINCT FROM 'lease' OR held.expires_at IS NULL OR held.expires_at < pg_catalog.clock_timestamp())
  AND (held.environment IS NULL
       OR (held.environment, held.database_name, held.repository)
          IS NOT DISTINCT FROM (excluded.environment, excluded.database_name, excluded.repository))
RETURNING fence

-- name: end_open_attempts
-- For whoever has just taken the lock, in the same message: nobody is at work any more, so what began and has no end was cut off. What
-- an attempt's own process knows of that is told if it is the one that has the lock now; so is what was said by whoever ended its
-- session. Only the newest events are looked at, by the primary key: each holder ends what the one before it left open.
WITH newest AS MATERIALIZED (
    SELECT * FROM {journal} ORDER BY recorded_at DESC, id DESC LIMIT 200
), known AS (
    SELECT :attempt::uuid AS attempt, :reason AS reason, :message AS message, :remedy AS remedy, :sqlstate AS sqlstate,
           :execution_time_ms::int AS execution_time_ms, :path AS path, :line::int AS line, :column_number::int AS column_number,
           :excerpt AS excerpt, :statement_index::int AS statement_index
)
INSERT INTO {journal} (attempt, event, outcome, version, name, direction, script_source, script_digest, policy_digest,
    execution_time_ms, reason, message, remedy, sqlstate, path, line, column_number, excerpt, statement_index,
    git_revision, git_author, environment, database_name, verb, os_user, database_user, host, pid, tool_version, fence)
SELECT begun.attempt, 'finished', 'interrupted', begun.version, begun.name, begun.direction, begun.script_source, begun.script_digest,
    begun.policy_digest, known.execution_time_ms, coalesce(known.reason, 'Interrupted'),
    concat_ws('; ', coalesce(known.message, CASE WHEN unlocked.message IS NULL THEN
                  'its process or its connection ended before its end could be recorded; so says who took the lock next: ' || held.holder
              END), 'its session was ended by `unlock`: ' || unlocked.message),
    known.remedy, known.sqlstate, known.path, known.line, known.column_number, known.excerpt, known.statement_index,
    begun.git_revision, begun.git_author, begun.environment, begun.database_name, begun.verb, begun.os_user, begun.database_user,
    begun.host, begun.pid, begun.tool_version, held.fence
FROM {lock} AS held CROSS JOIN newest AS begun
LEFT JOIN known ON known.attempt = begun.attempt
LEFT JOIN LATERAL (
    SELECT said.message FROM newest AS said
    WHERE said.event = 'unlock' AND said.outcome = 'terminated' AND said.fence = begun.fence ORDER BY said.recorded_at DESC LIMIT 1
) AS unlocked ON true
WHERE held.id = 1 AND held.owner = :owner AND begun.event = 'started'
  AND NOT EXISTS (SELECT FROM newest AS done WHERE done.event = 'finished' AND done.attempt = begun.attempt)
ORDER BY begun.recorded_at

-- name: take_lease
-- Only when nobody holds the lock in either way, and nothing of an owner before us is still going on in the server: the key is held by
-- each transaction that works under a lease, and a mark stands before each statement that runs outside one. :taking_over leaves the
-- claim as it is, whoever the database belongs to.
INSERT INTO {lock} AS held (id, owner, holder, mode, fence, since, renewed_at, expires_at, environment, database_name, repository)
VALUES (1, :owner, :holder, 'lease', 1, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp(),
        pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => :seconds),
        CASE WHEN NOT :taking_over THEN :environment::text END, CASE WHEN NOT :taking_over THEN :database_name::text END,
        CASE WHEN NOT :taking_over THEN :repository::text END)
ON CONFLICT (id) DO UPDATE
SET owner = excluded.owner, holder = excluded.holder, mode = excluded.mode, fence = held.fence + 1, since = excluded.since,
    renewed_at = excluded.renewed_at, expires_at = excluded.expires_at,
    environment = CASE WHEN :taking_over THEN held.environment ELSE excluded.environment END,
    database_name = CASE WHEN :taking_over THEN held.database_name ELSE excluded.database_name END,
    repository = CASE WHEN :taking_over THEN held.repository ELSE excluded.repository END
WHERE (held.owner IS NULL OR held.mode IS DISTINCT FROM 'lease' OR held.expires_at IS NULL
       OR held.expires_at < pg_catalog.clock_timestamp())
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                  AND l.classid = :key_high AND l.objid = :key_low
                  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity working
                  WHERE working.datname = pg_catalog.current_database() AND working.state = 'active'
                  AND working.pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(working.query, :mark))
  AND (:taking_over OR held.environment IS NULL
       OR (held.environment, held.database_name, held.repository)
          IS NOT DISTINCT FROM (excluded.environment, excluded.database_name, excluded.repository))
RETURNING fence

-- name: own_lease
-- After an attempt to take the lease whose answer never came.
SELECT fence FROM {lock} WHERE id = 1 AND owner = :owner AND mode = 'lease' AND expires_at > pg_catalog.clock_timestamp()

-- name: withdraw_lease
-- After an attempt to take it that was cancelled, whoever knows what came of it.
UPDATE {lock} SET owner = NULL, holder = NULL, since = NULL, expires_at = NULL WHERE id = 1 AND owner = :owner AND mode = 'lease'

-- name: renew_lease
UPDATE {lock}
SET renewed_at = pg_catalog.clock_timestamp(), expires_at = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => :seconds)
WHERE id = 1 AND owner = :owner AND fence = :fence AND mode = 'lease'
RETURNING fence

-- name: hold_while_working
SELECT pg_catalog.pg_advisory_xact_lock(:key)

-- name: still_ours
-- Divides by zero when the lock is no longer ours.
SELECT 1 / count(*) FROM {lock} WHERE id = 1 AND owner = :owner AND fence = :fence

-- name: working_process
-- The process that runs what the holder of a lease has sent: behind a pooler it is another one for every transaction.
SELECT l.pid FROM pg_catalog.pg_locks l
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = :key_high AND l.objid = :key_low
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
UNION ALL
SELECT working.pid FROM pg_catalog.pg_stat_activity working
WHERE working.datname = pg_catalog.current_database() AND working.state = 'active' AND working.pid <> pg_catalog.pg_backend_pid()
  AND pg_catalog.starts_with(working.query, :mark)
LIMIT 1

-- name: leave_nothing_behind
-- What a script has made of the session, undone within its own transaction: behind a pooler the session is everybody's. What poolers
-- keep track of for each of their clients is what it was again, and ours is set again.
CLOSE ALL;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
SET client_encoding = 'UTF8';
SET application_name = :application_name;
UNLISTEN *;
DISCARD PLANS;
DISCARD TEMPORARY;
DISCARD SEQUENCES

-- name: release_lock_row
UPDATE {lock} SET owner = NULL, holder = NULL, since = NULL, expires_at = NULL WHERE id = 1 AND owner = :owner AND fence = :fence

-- name: fence
-- Divides by zero, and so rolls the transaction back, when the lock is no longer ours.
WITH held AS (
    UPDATE {lock} SET renewed_at = pg_catalog.clock_timestamp() WHERE id = 1 AND owner = :owner AND fence = :fence RETURNING 1
)
SELECT 1 / count(*) FROM held

-- name: strict_fence
-- Also when a migration has dropped our advisory lock: for steps whose statements no rollback would undo.
WITH held AS (
    UPDATE {lock} SET renewed_at = pg_catalog.clock_timestamp() WHERE id = 1 AND owner = :owner AND fence = :fence
    AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                AND l.classid = :key_high AND l.objid = :key_low AND l.pid = pg_catalog.pg_backend_pid())
    RETURNING 1
)
SELECT 1 / count(*) FROM held

-- name: strict_fence_of_lease
-- Also when the lease has run out and nobody has taken it.
WITH held AS (
    UPDATE {lock} SET renewed_at = pg_catalog.clock_timestamp() WHERE id = 1 AND owner = :owner AND fence = :fence
    AND expires_at > pg_catalog.clock_timestamp()
    RETURNING 1
)
SELECT 1 / count(*) FROM held

-- name: insert_event
INSERT INTO {journal} (attempt, event, version, name, direction, outcome, script_source, script_digest, policy_digest,
    execution_time_ms, reason, message, remedy, sqlstate, path, line, column_number, excerpt, statement_index, blockers,
    git_revision, git_author, environment, database_name, verb, os_user, host, pid, tool_version, fence)
VALUES (:attempt, :event, :version, :name, :direction, :outcome, :script_source, :script_digest, :policy_digest,
    :execution_time_ms, :reason, :message, :remedy, :sqlstate, :path, :line, :column_number, :excerpt, :statement_index, :blockers,
    :git_revision, :git_author, :environment, :database_name, :verb, :os_user, :host, :pid, :tool_version, :fence)

-- name: insert_hook
-- A hook is of a whole run, not of one migration, whose newest attempt it must not be taken for. What the hook's last run told is
-- not told again, unless something else has happened since: one that fails is tried every few minutes for as long as it does.
INSERT INTO {journal} (attempt, event, name, outcome, execution_time_ms, reason, message, artefact,
    git_revision, git_author, environment, database_name, verb, os_user, host, pid, tool_version, fence)
SELECT :attempt, 'hook', :name, :outcome, :execution_time_ms, :reason, :message, :artefact,
    :git_revision, :git_author, :environment, :database_name, :verb, :os_user, :host, :pid, :tool_version, :fence
WHERE :artefact::text IS NOT NULL OR NOT EXISTS (
    SELECT FROM {journal} AS told
    WHERE told.event = 'hook' AND told.name = :name
      AND (told.outcome, told.reason, told.message) IS NOT DISTINCT FROM (:outcome::text, :reason::text, :message::text)
      AND told.fence = (SELECT max(earlier.fence) FROM {journal} AS earlier
                        WHERE earlier.event = 'hook' AND earlier.name = :name AND earlier.fence < :fence)
      AND NOT EXISTS (SELECT FROM {journal} AS since WHERE since.event <> 'hook' AND since.recorded_at > told.recorded_at))

-- name: insert_attempts
-- One row an event; the first that is returned is that of the first row.
INSERT INTO {journal} (attempt, event, outcome, version, name, direction, script_source, script_digest, policy_digest, execution_time_ms,
    git_revision, git_author, environment, database_name, verb, os_user, host, pid, tool_version, fence)
VALUES {rows}
RETURNING execution_time_ms

-- name: started
(:attempt, 'started', NULL, :version, :name, :direction, :script_source, :script_digest, :policy_digest, NULL,
    :git_revision, :git_author, :environment, :database_name, :verb, :os_user, :host, :pid, :tool_version, :fence)

-- name: succeeded
-- Within the step's own transaction, whose start is the step's start.
(:attempt, 'finished', 'success', :version, :name, :direction, :script_source, :script_digest, :policy_digest,
    (extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()) * 1000)::int,
    :git_revision, :git_author, :environment, :database_name, :verb, :os_user, :host, :pid, :tool_version, :fence)

-- name: not_run
(:attempt, 'finished', 'not_run', :version, :name, :direction, :script_source, :script_digest, :policy_digest, NULL,
    :git_revision, :git_author, :environment, :database_name, :verb, :os_user, :host, :pid, :tool_version, :fence)

-- name: newest_refusal
SELECT reason, message FROM {journal} WHERE event IN ('refused', 'finished', 'retry', 'repair', 'baseline') ORDER BY recorded_at DESC, id DESC LIMIT 1

-- name: forget_failed_row
DELETE FROM {history} WHERE version = :version AND status = 'failed' AND (transactional OR statements_done = 0)

-- name: insert_applied
INSERT INTO {history} (version, name, applied_at, checksum, execution_time_ms, status, direction, path, token_checksum,
    down_script, down_checksum, down_first_line, transactional, no_transaction, irreversible, lock_timeout, statement_timeout,
    statements_done, statements_total, git_revision, tool_version)
VALUES (:version, :name, pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', :checksum,
    (extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()) * 1000)::int,
    'success', 'up', :path, :token_checksum, :down_script, :down_checksum, :down_first_line, true, :no_transaction, :irreversible,
    :lock_timeout, :statement_timeout, :statements_total, :statements_total, :git_revision, :tool_version)

-- name: delete_applied
DELETE FROM {history} WHERE version = :version

-- name: record_failed_up
INSERT INTO {history} AS old (version, name, applied_at, checksum, execution_time_ms, status, error_message, direction, path, token_checksum,
    transactional, statements_total, git_revision, tool_version)
VALUES (:version, :name, pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', :checksum, :execution_time_ms, 'failed', :error_message,
    'up', :path, :token_checksum, true, :statements_total, :git_revision, :tool_version)
ON CONFLICT (version) DO UPDATE
SET name = excluded.name, applied_at = excluded.applied_at, checksum = excluded.checksum, execution_time_ms = excluded.execution_time_ms,
    status = 'failed', error_message = excluded.error_message, path = excluded.path, token_checksum = excluded.token_checksum,
    transactional = true, statements_done = 0, statements_total = excluded.statements_total, statements_digest = NULL,
    git_revision = excluded.git_revision, tool_version = excluded.tool_version
WHERE old.status <> 'success'

-- name: begin_steps_up
-- A migration outside a transaction: its row says `running` before the first statement is sent.
INSERT INTO {history} AS old (version, name, applied_at, checksum, status, direction, path, token_checksum,
    down_script, down_checksum, down_first_line, transactional, no_transaction, irreversible, lock_timeout, statement_timeout,
    statements_done, statements_total, statements_digest, git_revision, tool_version)
VALUES (:version, :name, pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', :checksum, 'running', 'up', :path, :token_checksum,
    :down_script, :down_checksum, :down_first_line, false, :no_transaction, :irreversible, :lock_timeout, :statement_timeout,
    :statements_done, :statements_total, :statements_digest, :git_revision, :tool_version)
ON CONFLICT (version) DO UPDATE
SET name = excluded.name, applied_at = excluded.applied_at, checksum = excluded.checksum, status = 'running', error_message = NULL,
    direction = 'up', path = excluded.path, token_checksum = excluded.token_checksum, down_script = excluded.down_script,
    down_checksum = excluded.down_checksum, down_first_line = excluded.down_first_line, transactional = false,
    no_transaction = excluded.no_transaction, irreversible = excluded.irreversible, lock_timeout = excluded.lock_timeout,
    statement_timeout = excluded.statement_timeout, statements_done = excluded.statements_done,
    statements_total = excluded.statements_total, statements_digest = excluded.statements_digest,
    intent_digest = NULL, intent_object = NULL, intent_before = NULL,
    git_revision = excluded.git_revision, tool_version = excluded.tool_version
WHERE old.status <> 'success'
RETURNING 1

-- name: begin_steps_down
UPDATE {history}
SET status = 'running', error_message = NULL, direction = 'down', transactional = false, statements_done = :statements_done,
    statements_total = :statements_total, statements_digest = :statements_digest,
    intent_digest = NULL, intent_object = NULL, intent_before = NULL
WHERE version = :version
RETURNING 1

-- name: record_intent
-- Takes the logarithm of zero when somebody has deleted the row.
WITH recorded AS (
    UPDATE {history}
    SET statements_done = :statements_done, statements_digest = :statements_digest, intent_digest = :intent_digest,
        intent_object = :intent_object, intent_before = :intent_before
    WHERE version = :version RETURNING 1
)
SELECT pg_catalog.ln(count(*)::float8) FROM recorded

-- name: prepare_record_done
-- How much is done, with the fence in the same statement: divides by zero when the lock is no longer ours, and takes the logarithm of
-- zero when somebody has deleted the row. Planned once: a long script says it a thousand times.
PREPARE {prepared} (int, text) AS
WITH held AS (
    UPDATE {lock} SET renewed_at = pg_catalog.clock_timestamp() WHERE id = 1 AND owner = :owner AND fence = :fence RETURNING 1
), recorded AS (
    UPDATE {history}
    SET statements_done = $1, statements_digest = $2, intent_digest = NULL, intent_object = NULL, intent_before = NULL
    WHERE version = :version RETURNING 1
)
SELECT 1 / (SELECT count(*) FROM held), pg_catalog.ln((SELECT count(*) FROM recorded)::float8)

-- name: record_done
EXECUTE {prepared} (:statements_done, :statements_digest)

-- name: end_steps_up
-- Takes the logarithm of zero when somebody has deleted the row.
WITH recorded AS (
    UPDATE {history}
    SET status = 'success', applied_at = pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', execution_time_ms = :execution_time_ms,
        statements_done = statements_total, statements_digest = :statements_digest, error_message = NULL,
        intent_digest = NULL, intent_object = NULL, intent_before = NULL
    WHERE version = :version RETURNING 1
)
SELECT pg_catalog.ln(count(*)::float8) FROM recorded

-- name: fail_steps
-- What was written of the statement that failed stays; it tells what that may have left behind.
UPDATE {history}
SET status = 'failed', execution_time_ms = :execution_time_ms, error_message = :error_message,
    statements_done = :statements_done, statements_digest = :statements_digest,
    intent_digest = :intent_digest, intent_object = :intent_object, intent_before = :intent_before
WHERE version = :version

-- name: forget_down
-- Nothing of the down is in force: the migration is applied as it was before.
UPDATE {history}
SET status = 'success', direction = 'up', transactional = :transactional, statements_done = :statements_done,
    statements_total = :statements_total, statements_digest = :statements_digest,
    intent_digest = NULL, intent_object = NULL, intent_before = NULL
WHERE version = :version

-- name: resolve_index
-- Where an index that is about to be made will stand: beside its table. In the session's own search path.
SELECT pg_catalog.quote_ident(n.nspname) || '.' || :name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(:table)

-- name: resolve_relation
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(:name)

-- name: indexes_of
-- A table, in the session's own search path, and the indexes it has.
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
       (SELECT coalesce(pg_catalog.array_agg(i.indexrelid), '{}')::text FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(:table)

-- name: state_of_index
-- Who is at work on its table: pg_stat_progress_create_index hides from us what other roles are building; their locks it does not.
SELECT coalesce((SELECT CASE WHEN i.indisvalid THEN 'valid'
                             WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.granted
                                          AND l.relation = i.indrelid AND l.mode = 'ShareUpdateExclusiveLock'
                                          AND l.pid <> pg_catalog.pg_backend_pid()
                                          AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                            WHERE datname = pg_catalog.current_database()))
                             THEN 'building' ELSE 'invalid' END
                        || ' ' || json_build_array(json_build_array(i.indexrelid::regclass::text, i.indrelid::regclass::text))::text
                 FROM pg_catalog.pg_index i WHERE i.indexrelid = pg_catalog.to_regclass(:name)), 'absent')

-- name: state_of_unnamed
-- The indexes that a table has beside those it is known to have had, as state_of_index tells of one.
SELECT CASE WHEN count(*) = 0 THEN 'absent'
            WHEN bool_and(i.indisvalid) THEN 'valid'
            WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.granted
                         AND l.relation = pg_catalog.to_regclass(:table) AND l.mode = 'ShareUpdateExclusiveLock'
                         AND l.pid <> pg_catalog.pg_backend_pid()
                         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
            THEN 'building' ELSE 'invalid' END
       || coalesce(' ' || (json_agg(json_build_array(i.indexrelid::regclass::text, i.indrelid::regclass::text)
                                    ORDER BY i.indisvalid, i.indexrelid))::text, '')
FROM pg_catalog.pg_index i
WHERE i.indrelid = pg_catalog.to_regclass(:table) AND i.indexrelid <> ALL (:known::oid[])

-- name: state_of_reindex
-- What REINDEX CONCURRENTLY leaves behind when it is cut off, in the whole database: it may have been told to rebuild everything.
SELECT coalesce('invalid ' || json_agg(json_build_array(i.indexrelid::regclass::text, i.indrelid::regclass::text)
                                       ORDER BY i.indexrelid)::text, 'absent')
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.granted AND l.relation = i.indrelid
                  AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid()
                  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))

-- name: state_of_database
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = :name) THEN 'valid' ELSE 'absent' END

-- name: state_of_tablespace
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE spcname = :name) THEN 'valid' ELSE 'absent' END

-- name: state_of_subscription
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
                         WHERE s.subname = :name AND d.datname = pg_catalog.current_database()) THEN 'valid' ELSE 'absent' END

-- name: state_of_prepared
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid = :name) THEN 'valid' ELSE 'absent' END

-- name: state_of_partition
-- `to_jsonb` since PostgreSQL 13 has no column for a half detached one.
SELECT coalesce((SELECT CASE WHEN (pg_catalog.to_jsonb(i) ->> 'inhdetachpending')::boolean THEN 'pending' ELSE 'valid' END
                 FROM pg_catalog.pg_inherits i WHERE i.inhrelid = pg_catalog.to_regclass(:name)), 'absent')

-- name: watch_name
-- Tells the connection that looks from the one that works.
SELECT pg_catalog.set_config('application_name',
                             pg_catalog.left(pg_catalog.current_setting('application_name') || ' (watching)', 63), false)

-- name: watch_blockers
-- Who is in the way of backend :pid. Asked only while it waits for a lock: pg_blocking_pids stops the lock manager for a moment. That a
-- session of another role waits, which pg_stat_activity may keep from us, its locks tell. A
-- blocking pid of 0 is a prepared transaction; of those, the ones that hold what we wait for are told. A column that this version of
-- the server has not is NULL by way of JSON. The last column says for how long we have been waiting.
WITH waiting AS MATERIALIZED (
    SELECT pid FROM pg_catalog.pg_stat_activity
    WHERE pid = :pid AND (wait_event_type = 'Lock' OR state IS NULL AND EXISTS (
        SELECT FROM pg_catalog.pg_locks wanted WHERE wanted.pid = :pid AND NOT wanted.granted))
), blocking AS MATERIALIZED (
    SELECT DISTINCT found.pid FROM waiting CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS found (pid)
), locks AS MATERIALIZED (
    SELECT * FROM pg_catalog.pg_locks WHERE EXISTS (SELECT FROM blocking)
), wait AS MATERIALIZED (
    SELECT max(extract(epoch FROM pg_catalog.clock_timestamp() - (pg_catalog.to_jsonb(wanted) ->> 'waitstart')::timestamptz))::float8
           AS seconds
    FROM locks wanted WHERE wanted.pid = :pid AND NOT wanted.granted
)
SELECT other.pid, coalesce(other.usename::text, ''),
       coalesce(nullif(other.application_name, ''), CASE WHEN other.backend_type <> 'client backend' THEN other.backend_type END),
       other.state, extract(epoch FROM pg_catalog.clock_timestamp() - other.xact_start)::float8,
       (pg_catalog.to_jsonb(other) ->> 'query_id')::bigint,
       CASE WHEN :show_queries THEN pg_catalog.left(other.query, 500) END, NULL::text, wait.seconds
FROM blocking JOIN pg_catalog.pg_stat_activity other ON other.pid = blocking.pid CROSS JOIN wait
UNION ALL
SELECT 0, prepared.owner::text, NULL, 'prepared', extract(epoch FROM pg_catalog.clock_timestamp() - prepared.prepared)::float8, NULL, NULL,
       prepared.gid, wait.seconds
FROM blocking CROSS JOIN wait LEFT JOIN pg_catalog.pg_prepared_xacts prepared ON EXISTS (
    SELECT FROM locks wanted
    JOIN locks held ON held.granted AND held.pid IS NULL
        AND (held.locktype, held.database, held.relation, held.page, held.tuple, held.virtualxid, held.transactionid, held.classid,
             held.objid, held.objsubid)
            IS NOT DISTINCT FROM
            (wanted.locktype, wanted.database, wanted.relation, wanted.page, wanted.tuple, wanted.virtualxid, wanted.transactionid,
             wanted.classid, wanted.objid, wanted.objsubid)
    -- every transaction that writes holds its own id
    JOIN locks own ON own.pid IS NULL AND own.locktype = 'transactionid' AND own.virtualtransaction = held.virtualtransaction
    WHERE wanted.pid = :pid AND NOT wanted.granted AND own.transactionid = prepared.transaction
)
WHERE blocking.pid = 0
ORDER BY 5 DESC NULLS LAST, 1

-- name: watch_progress
-- How far backend :pid has come with a command that the server counts: phase, object, done and total of what the phase goes through,
-- the same in tuples, and in partitions or child tables. What a transaction has made itself has no name for us yet.
SELECT phase, coalesce((SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = index_relid),
                       (SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = relid)),
       blocks_done, blocks_total, tuples_done, tuples_total, partitions_done, partitions_total
FROM pg_catalog.pg_stat_progress_create_index WHERE pid = :pid
UNION ALL
SELECT 'vacuum: ' || phase, (SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = relid),
       CASE phase WHEN 'scanning heap' THEN heap_blks_scanned WHEN 'vacuuming heap' THEN heap_blks_vacuumed END,
       CASE WHEN phase IN ('scanning heap', 'vacuuming heap') THEN heap_blks_total END, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_stat_progress_vacuum WHERE pid = :pid
UNION ALL
SELECT lower(command) || ': ' || phase, (SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = relid),
       heap_blks_scanned, CASE phase WHEN 'seq scanning heap' THEN heap_blks_total END, NULL, NULL, NULL, NULL
FROM pg_catalog.pg_stat_progress_cluster WHERE pid = :pid
UNION ALL
SELECT 'analyze: ' || phase, (SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = relid),
       sample_blks_scanned, CASE WHEN phase LIKE 'acquiring%sample rows' THEN sample_blks_total END, NULL, NULL,
       child_tables_done, child_tables_total
FROM pg_catalog.pg_stat_progress_analyze WHERE pid = :pid

-- name: watch_copy
-- From PostgreSQL 14 on. The server knows the size of a file, and not of what we send.
SELECT lower(command), (SELECT oid::regclass::text FROM pg_catalog.pg_class WHERE oid = relid), bytes_processed, bytes_total,
       NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
FROM pg_catalog.pg_stat_progress_copy WHERE pid = :pid

-- name: read_work
-- The session that holds the lock, and what it is at: of the journal's newest events, the attempt that was begun under the lock as it
-- is held now and has not ended. What an earlier holder left behind in the lock's row is older than a session that says nothing there.
SELECT held.pid, begun.version, begun.name, begun.direction, begun.script_source, extract(epoch FROM begun.recorded_at)::float8,
       NOT EXISTS (SELECT FROM {history} AS row WHERE row.version = begun.version AND row.status = 'running')
FROM pg_catalog.pg_locks held
JOIN {lock} AS owned ON owned.id = 1
LEFT JOIN pg_catalog.pg_stat_activity activity ON activity.pid = held.pid
CROSS JOIN LATERAL (
    SELECT started.*
    FROM (SELECT * FROM {journal} ORDER BY recorded_at DESC, id DESC LIMIT 50) started
    WHERE started.event = 'started' AND started.fence = owned.fence AND started.version > 0 AND started.direction IN ('up', 'down')
      AND NOT EXISTS (SELECT FROM {journal} AS ended WHERE ended.recorded_at >= started.recorded_at
                      AND ended.attempt = started.attempt AND ended.event = 'finished')
    ORDER BY started.recorded_at DESC LIMIT 1
) begun
WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
  AND held.classid = :key_high AND held.objid = :key_low
  AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND owned.owner IS NOT NULL AND (activity.backend_start IS NULL OR activity.backend_start <= owned.since)

-- name: pin_row
UPDATE {history}
SET name = :name, checksum = :checksum, token_checksum = :token_checksum, down_script = :down_script, down_checksum = :down_checksum,
    down_first_line = :down_first_line, no_transaction = :no_transaction, irreversible = :irreversible,
    lock_timeout = :lock_timeout, statement_timeout = :statement_timeout, path = :path
WHERE version = :version

-- name: take_lock_row_of_others
-- As take_lock_row, whoever the database belongs to: that stays as it is.
INSERT INTO {lock} AS held (id, owner, holder, mode, fence, since, renewed_at)
VALUES (1, :owner, :holder, 'advisory', 1, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp())
ON CONFLICT (id) DO UPDATE
SET owner = excluded.owner, holder = excluded.holder, mode = excluded.mode, fence = held.fence + 1, since = excluded.since,
    renewed_at = excluded.renewed_at, expires_at = NULL
WHERE held.mode IS DISTINCT FROM 'lease' OR held.expires_at IS NULL OR held.expires_at < pg_catalog.clock_timestamp()
RETURNING fence

-- name: write_claim
UPDATE {lock} SET environment = :environment, database_name = :database_name, repository = :repository WHERE id = 1

-- name: insert_repaired
-- What a person says is in force: as insert_applied, but nothing ran.
INSERT INTO {history} (version, name, applied_at, checksum, status, direction, path, token_checksum,
    down_script, down_checksum, down_first_line, transactional, no_transaction, irreversible, lock_timeout, statement_timeout,
    statements_done, statements_total, git_revision, tool_version)
VALUES (:version, :name, pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', :checksum, 'success', 'up', :path, :token_checksum,
    :down_script, :down_checksum, :down_first_line, :transactional, :no_transaction, :irreversible, :lock_timeout, :statement_timeout,
    :statements_total, :statements_total, :git_revision, :tool_version)

-- name: accept_row
UPDATE {history}
SET name = :name, checksum = :checksum, token_checksum = :token_checksum, down_script = :down_script, down_checksum = :down_checksum,
    down_first_line = :down_first_line, no_transaction = :no_transaction, irreversible = :irreversible,
    lock_timeout = :lock_timeout, statement_timeout = :statement_timeout, path = :path, git_revision = :git_revision
WHERE version = :version

-- name: settle_row
UPDATE {history}
SET status = 'success', direction = 'up', error_message = NULL, statements_done = statements_total,
    intent_digest = NULL, intent_object = NULL, intent_before = NULL
WHERE version = :version

-- name: lock_session
-- Of a session of another role the server tells only a part, unless we may read all statistics.
SELECT held.pid, coalesce(pg_catalog.pg_get_userbyid(activity.usesysid)::text, ''), coalesce(activity.application_name, ''),
       coalesce(pg_catalog.host(activity.client_addr), ''), coalesce(activity.state, ''),
       extract(epoch FROM activity.backend_start)::float8, extract(epoch FROM activity.xact_start)::float8
FROM pg_catalog.pg_locks held LEFT JOIN pg_catalog.pg_stat_activity activity ON activity.pid = held.pid
WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
  AND held.classid = :key_high AND held.objid = :key_low
  AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY activity.backend_start, held.pid

-- name: lock_row
SELECT coalesce(holder, owner::text, ''), coalesce(mode, ''), extract(epoch FROM since)::float8, extract(epoch FROM renewed_at)::float8,
       coalesce(mode = 'lease' AND expires_at > pg_catalog.clock_timestamp(), false), fence
FROM {lock} WHERE id = 1

-- name: insert_unlock
INSERT INTO {journal} (attempt, event, outcome, message, git_revision, git_author, environment, database_name, verb, os_user, host, pid,
    tool_version, fence)
VALUES (:attempt, 'unlock', :outcome, :message, :git_revision, :git_author, :environment, :database_name, :verb, :os_user, :host, :pid,
    :tool_version, :fence)

-- name: end_lock_session
-- Divides by zero, and so rolls the transaction back, when it is not this very session any more that holds the lock.
WITH ended AS MATERIALIZED (
    SELECT pg_catalog.pg_terminate_backend(held.pid) AS done
    FROM pg_catalog.pg_locks held JOIN pg_catalog.pg_stat_activity activity ON activity.pid = held.pid
    WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
      AND held.classid = :key_high AND held.objid = :key_low AND held.pid = :session
      AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND round(extract(epoch FROM activity.backend_start)::numeric, 3) IS NOT DISTINCT FROM round(:connected_at::numeric, 3)
)
SELECT 1 / count(*) FILTER (WHERE done) FROM ended

-- name: clear_lock_row
-- Divides by zero when somebody else has taken the lock since.
WITH cleared AS (
    UPDATE {lock} SET owner = NULL, holder = NULL, since = NULL, expires_at = NULL, renewed_at = pg_catalog.clock_timestamp()
    WHERE id = 1 AND fence = :fence RETURNING 1
)
SELECT 1 / count(*) FROM cleared
