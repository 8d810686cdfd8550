"""The simulator does what the notes on CockroachDB say the server does. Each test names the part of them it holds to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.crdb import CrdbConnection

from tests.cockroach.execution import AUTOCOMMIT_NOTICE, JOB_NOTICE_DETAIL
from tests.cockroach.faults import AFTER, BEFORE, DURING, Fault
from tests.cockroach.jobs import CANCELED, FAILED, PAUSED, REVERT_FAILED, SUCCEEDED, Fate
from tests.cockroach.simulator import VERSION, Simulator

Rows = list[tuple[Any, ...]]
JOB_COLUMNS = [
    "job_id",
    "job_type",
    "description",
    "statement",
    "user_name",
    "status",
    "running_status",
    "created",
    "started",
    "finished",
    "modified",
    "fraction_completed",
    "error",
    "coordinator_id",
]


class Client:
    """A connection that keeps what it is told."""

    def __init__(self, simulator: Simulator, **parameters: str) -> None:
        self.connection = psycopg.connect(simulator.dsn_with(**parameters), autocommit=True)
        self.notices: list[tuple[str | None, str]] = []
        self.connection.add_notice_handler(
            lambda notice: self.notices.append((notice.severity, notice.message_primary or ""))
        )

    def __call__(self, text: str) -> Rows:
        cursor = self.connection.execute(text.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []

    def refusal(self, text: str) -> str:
        """The SQLSTATE of what it is told of `text`; empty when the connection ended without a word."""
        with pytest.raises(psycopg.Error) as caught:
            self(text)
        return caught.value.sqlstate or ""

    @property
    def transaction(self) -> str:
        """`IDLE`, `INTRANS` or `INERROR`."""
        return self.connection.info.transaction_status.name

    def told(self, words: str) -> bool:
        return any(words in text for _, text in self.notices)


Connect = Callable[..., Client]


@pytest.fixture
def connect(simulator: Simulator) -> Iterator[Connect]:
    """Makes clients, and closes them in the end."""
    clients: list[Client] = []

    def connect(**parameters: str) -> Client:
        clients.append(Client(simulator, **parameters))
        return clients[-1]

    yield connect
    for client in clients:
        client.connection.close()


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()


def really(simulator: Simulator, query: str) -> Rows:
    """What PostgreSQL itself answers."""
    with psycopg.connect(simulator.postgresql, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def exists(simulator: Simulator, table: str) -> bool:
    return really(simulator, f"SELECT to_regclass('{table}') IS NOT NULL") == [(True,)]


# 11, psycopg: `is_crdb` tests the parameter status; 7: `server_version` is the emulated PostgreSQL


def test_it_says_what_it_is(simulator: Simulator, client: Client) -> None:
    assert CrdbConnection.is_crdb(client.connection)
    assert client("SELECT version()") == [(VERSION,)]
    assert client("SELECT pg_catalog.version(), 1") == [(VERSION, 1)]
    assert client("SHOW crdb_version") == [(VERSION,)]
    assert client.connection.info.server_version == 130000
    with CrdbConnection.connect(simulator.dsn) as connection:
        assert connection.info.server_version == 260203


def test_behind_a_pooler_only_version_tells(simulator: Simulator, connect: Connect) -> None:
    simulator.reports_version = False
    client = connect()
    assert not CrdbConnection.is_crdb(client.connection)
    assert "CockroachDB" in client("SELECT version()")[0][0]


# 7, session settings


def test_settings_that_only_it_has(simulator: Simulator, client: Client, connect: Connect) -> None:
    assert client("SHOW autocommit_before_ddl") == [("on",)]
    client("SET default_int_size = 4; SET SESSION serial_normalization = 'sql_sequence_cached'")
    assert client("SHOW default_int_size") == [("4",)]
    assert client("SHOW serial_normalization") == [("sql_sequence_cached",)]
    client("SET autocommit_before_ddl = false")
    assert client("SHOW autocommit_before_ddl") == [("off",)]
    client("BEGIN; SET LOCAL default_int_size = 8; SET LOCAL statement_timeout = 5000")
    assert client("SHOW default_int_size") == [("8",)]
    client("COMMIT")
    assert client("SELECT current_setting('default_int_size')") == [("4",)]
    client("RESET ALL")
    assert client("SHOW default_int_size") == [("8",)]
    assert client("SHOW transaction isolation level") == [("serializable",)]
    assert client("SHOW max_identifier_length") == [("128",)]
    other = connect(options="-c autocommit_before_ddl=off -c statement_timeout=7s")
    assert other("SHOW autocommit_before_ddl") == [("off",)]
    assert other("SHOW statement_timeout") == [("7s",)]


@pytest.mark.parametrize(
    "text", ["SET deadlock_timeout = 1", "SHOW wal_level", "SELECT current_setting('server_encoding_x')"]
)
def test_settings_that_it_has_not(client: Client, text: str) -> None:
    assert client.refusal(text) == "42704"


def test_options_that_it_has_not(simulator: Simulator, connect: Connect) -> None:
    with pytest.raises(psycopg.OperationalError, match="unrecognized configuration parameter"):
        connect(options="-c jit=off")


# 1, DDL and transactions


def test_ddl_inside_a_transaction_commits_it_first(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int)")
    client("BEGIN")
    client("INSERT INTO t VALUES (1)")
    client.notices.clear()
    client("CREATE TABLE u (id int)")
    assert client.notices[0] == ("NOTICE", AUTOCOMMIT_NOTICE)
    assert client.transaction == "IDLE"
    assert really(simulator, "SELECT id FROM t") == [(1,)]
    client("ROLLBACK")
    assert client.notices[-1] == ("WARNING", "there is no transaction in progress")
    assert exists(simulator, "u")
    assert really(simulator, "SELECT id FROM t") == [(1,)]


def test_ddl_right_after_begin_commits_too(client: Client) -> None:
    client("BEGIN")
    client("CREATE TABLE t (id int)")
    assert client.told(AUTOCOMMIT_NOTICE)
    client.notices.clear()
    client("COMMIT")
    assert client.notices == [("WARNING", "there is no transaction in progress")]


def test_ddl_behind_another_statement_of_a_message_commits_first(
    simulator: Simulator, client: Client
) -> None:
    client("CREATE TABLE t (id int); CREATE TABLE u (id int)")
    assert client.told(AUTOCOMMIT_NOTICE)
    assert client.refusal("INSERT INTO t VALUES (1); CREATE TABLE t (id int)") == "42P07"
    assert really(simulator, "SELECT id FROM t") == [(1,)]
    client.notices.clear()
    client("SET statement_timeout = 0; CREATE TABLE v (id int)")
    assert client.told(AUTOCOMMIT_NOTICE)


def test_ddl_alone_has_no_such_notice(client: Client) -> None:
    client("CREATE TABLE t (id int)")
    client("ALTER TABLE t ADD COLUMN word text")
    assert not client.told(AUTOCOMMIT_NOTICE)


def test_switched_off_ddl_stays_in_its_transaction(simulator: Simulator, client: Client) -> None:
    client("SET autocommit_before_ddl = off")
    client("BEGIN")
    client("CREATE TABLE t (id int)")
    assert client.transaction == "INTRANS"
    client("ROLLBACK")
    assert not exists(simulator, "t")
    assert client.refusal("COMMIT") == "25P01"
    assert not client.told(AUTOCOMMIT_NOTICE)
    client("BEGIN; CREATE TABLE t (id int); COMMIT")
    assert exists(simulator, "t")
    client("BEGIN")
    assert client.refusal("ALTER TABLE t ALTER COLUMN id TYPE bigint") == "0A000"
    assert client.transaction == "INERROR"
    client("ROLLBACK")


def test_a_message_without_begin_is_one_transaction(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int PRIMARY KEY)")
    assert client.refusal("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)") == "23505"
    assert really(simulator, "SELECT * FROM t") == []
    client("INSERT INTO t VALUES (1); SET LOCAL search_path = pg_catalog; INSERT INTO public.t VALUES (2)")
    assert client("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    client("INSERT INTO t VALUES (3); BEGIN; INSERT INTO t VALUES (4)")
    assert client.transaction == "INTRANS"
    client("ROLLBACK")
    assert really(simulator, "SELECT count(*) FROM t") == [(2,)]


def test_an_error_leaves_a_transaction_that_waits_for_its_end(client: Client) -> None:
    client("CREATE TABLE t (id int PRIMARY KEY)")
    client("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a")
    assert client.refusal("SELECT 1/0") == "22012"
    assert client.refusal("SELECT 1") == "25P02"
    client("ROLLBACK TO SAVEPOINT a; INSERT INTO t VALUES (2); COMMIT")
    assert client("SELECT id FROM t") == [(1,), (2,)]


def test_xxa00_means_that_the_data_is_committed_and_the_schema_change_is_not(
    simulator: Simulator, client: Client
) -> None:
    client("CREATE TABLE t (id int)")
    client("SET autocommit_before_ddl = off")
    simulator.arm(Fault(matching="^COMMIT", sqlstate="XXA00"))
    client("BEGIN; INSERT INTO t VALUES (1); CREATE TABLE u (id int)")
    assert client.refusal("COMMIT") == "XXA00"
    assert really(simulator, "SELECT id FROM t") == [(1,)]
    assert not exists(simulator, "u")
    assert client.transaction == "IDLE"


# 2, errors; 3, retry protocol


def test_real_conflicts_are_worded_as_there(simulator: Simulator, client: Client, connect: Connect) -> None:
    client("CREATE TABLE t (id int PRIMARY KEY, n int)")
    client("INSERT INTO t VALUES (1, 0)")
    other = connect()
    for each in (client, other):
        each("BEGIN; SELECT n FROM t")
    client("UPDATE t SET n = 1; COMMIT")
    with pytest.raises(psycopg.errors.SerializationFailure, match=r"^restart transaction") as caught:
        other("UPDATE t SET n = 2")
    assert caught.value.diag.statement_position is None


def test_retry_errors_can_be_asked_for(client: Client) -> None:
    client("SET inject_retry_errors_enabled = true")
    assert client("SELECT 1") == [(1,)]
    client("BEGIN")
    assert client.refusal("SELECT 1") == "40001"
    client("ROLLBACK")
    client("SET inject_retry_errors_enabled = off")
    client("BEGIN; SELECT 1; COMMIT")


@pytest.mark.parametrize("sqlstate", ["40001", "40003", "XXA00", "57014", "55P03", "58C00"])
@pytest.mark.parametrize("when", [BEFORE, AFTER])
def test_an_error_at_commit(simulator: Simulator, client: Client, sqlstate: str, when: str) -> None:
    client("CREATE TABLE t (id int)")
    simulator.arm(Fault(matching="^COMMIT", when=when, sqlstate=sqlstate))
    client("BEGIN; INSERT INTO t VALUES (1)")
    with pytest.raises(psycopg.Error) as caught:
        client("COMMIT")
    assert caught.value.sqlstate == sqlstate
    assert client.transaction == "IDLE"
    applied = when == AFTER and sqlstate != "40001"
    assert bool(really(simulator, "SELECT * FROM t")) is applied
    assert str(caught.value).startswith("restart transaction") is (sqlstate == "40001")
    # it is done once
    client("BEGIN; INSERT INTO t VALUES (2); COMMIT")


def test_an_error_within_a_transaction_leaves_nothing(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int)")
    simulator.arm(
        Fault(matching="INSERT", when=AFTER, sqlstate="58C00"), Fault(matching="3", sqlstate="40001")
    )
    client("BEGIN")
    assert client.refusal("INSERT INTO t VALUES (1)") == "58C00"
    assert client.transaction == "INERROR"
    client("COMMIT")
    client("BEGIN; INSERT INTO t VALUES (2)")
    assert client.refusal("INSERT INTO t VALUES (3); COMMIT") == "40001"
    assert client.transaction == "INERROR"
    client("ROLLBACK")
    assert client.refusal("INSERT INTO t VALUES (4); SELECT 1/0") == "22012"
    assert really(simulator, "SELECT * FROM t") == []


def test_57p01_ends_the_connection(simulator: Simulator, client: Client, connect: Connect) -> None:
    simulator.arm(Fault(at=0, sqlstate="57P01"))
    assert client.refusal("SELECT 1") == "57P01"
    assert client.connection.closed
    other = connect()
    simulator.drain()
    assert other.refusal("SELECT 1") in ("57P01", "")
    assert connect()("SELECT 1") == [(1,)]


@pytest.mark.parametrize(("when", "portion"), [(BEFORE, 0.0), (AFTER, 0.0), (AFTER, 0.5)])
@pytest.mark.parametrize("text", ["INSERT INTO t VALUES (1) RETURNING id", "CREATE TABLE u (id int)"])
def test_a_cut(simulator: Simulator, client: Client, when: str, portion: float, text: str) -> None:
    client("CREATE TABLE t (id int)")
    simulator.arm(Fault(at=0, when=when, cut=True, portion=portion))
    assert client.refusal(text) == ""
    assert client.connection.closed
    happened = bool(really(simulator, "SELECT * FROM t")) or exists(simulator, "u")
    assert happened is (when == AFTER)
    assert [seen.outcome for seen in simulator.statements] == ["cut"]


def test_a_cut_rolls_back_what_is_open(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int)")
    simulator.arm(Fault(matching="^COMMIT", cut=True))
    assert client.refusal("BEGIN; INSERT INTO t VALUES (1); COMMIT") == ""
    assert really(simulator, "SELECT * FROM t") == []


def test_a_delay(simulator: Simulator, client: Client) -> None:
    simulator.arm(Fault(at=0, delay=0.2), Fault(at=1, delay=0.2, when=AFTER))
    begun = time.monotonic()
    assert client("SELECT 1; SELECT 2") == [(2,)]
    assert time.monotonic() - begun > 0.4


def test_every_statement_can_be_walked_through(simulator: Simulator, connect: Connect) -> None:
    script = (
        "CREATE TABLE IF NOT EXISTS t (id int)",
        "BEGIN",
        "DELETE FROM t",
        "INSERT INTO t VALUES (1)",
        "COMMIT",
    )

    def run() -> None:
        client = connect(application_name="walker")
        try:
            client("; ".join(script[:1]))
            client("; ".join(script[1:]))
        finally:
            client.connection.close()

    def ours(application_name: str) -> bool:
        return application_name == "walker"

    simulator.arm(counting=lambda seen: ours(seen.application_name))
    connect()("SELECT 'not counted'")
    run()
    seen = simulator.statements
    assert [(each.number, each.text) for each in seen] == list(enumerate(script))
    assert [each.transaction for each in seen] == ["none", "none", "open", "open", "open"]
    assert [(each.index, each.of) for each in seen] == [(0, 1), (0, 4), (1, 4), (2, 4), (3, 4)]
    for number in range(len(seen)):
        simulator.arm(Fault(at=number, cut=True), counting=lambda seen: ours(seen.application_name))
        with pytest.raises(psycopg.OperationalError):
            run()
        assert len(simulator.statements) == number + 1
        run()
        assert really(simulator, "SELECT id FROM t") == [(1,)]


# 4, schema change jobs


def test_a_schema_change_is_a_job(simulator: Simulator, client: Client) -> None:
    text = f"CREATE TABLE t (id int, {', '.join(f'column_{number} int' for number in range(20))})"
    client(text)
    job = simulator.jobs.find("CREATE TABLE t")
    assert client.notices == [
        ("NOTICE", f"waiting for job(s) to complete: {job.job_id}\n{JOB_NOTICE_DETAIL}")
    ]
    cursor = client.connection.execute("SHOW JOBS")
    assert [column.name for column in cursor.description or ()] == JOB_COLUMNS
    row = dict(zip(JOB_COLUMNS, cursor.fetchall()[0], strict=True))
    assert row["description"] == text[:100]
    assert row["statement"] == text
    assert (row["status"], row["job_type"], row["fraction_completed"]) == (
        SUCCEEDED,
        "NEW SCHEMA CHANGE",
        1.0,
    )
    assert client(f"SHOW JOB {job.job_id}")[0][0] == job.job_id
    assert client(f"SHOW JOB WHEN COMPLETE {job.job_id}")[0][5] == SUCCEEDED
    assert client("SELECT count(*) FROM [SHOW JOBS] AS j WHERE j.job_type LIKE '%SCHEMA CHANGE'") == [(1,)]
    assert client(f"SELECT status FROM [SHOW JOB {job.job_id}]") == [(SUCCEEDED,)]
    assert client("WITH x AS (SELECT * FROM [SHOW JOBS]) SELECT status FROM x WHERE status = 'running'") == []


def test_older_servers_say_nothing_of_their_jobs(simulator: Simulator, client: Client) -> None:
    simulator.job_notices = False
    client("CREATE TABLE t (id int)")
    assert client.notices == []


def test_nonsense_is_refused_without_a_job(simulator: Simulator, client: Client) -> None:
    assert client.refusal("CREATE TABLE t (id nosuchtype)") == "42704"
    assert client.refusal("DROP TABLE nothing") == "42P01"
    assert simulator.jobs.all() == []


def test_a_job_goes_on_when_its_client_dies(simulator: Simulator, client: Client, connect: Connect) -> None:
    simulator.jobs.plan(Fate(hold=True), matching="CREATE TABLE t")
    client.connection.pgconn.send_query(b"CREATE TABLE t (id int)")
    client.connection.pgconn.flush()
    job = simulator.jobs.find("CREATE TABLE t", status="running")
    client.connection.close()
    assert not exists(simulator, "t")
    other = connect()
    assert other("SELECT status FROM [SHOW JOBS]") == [("running",)]
    simulator.jobs.release(job.job_id)
    assert other(f"SHOW JOB WHEN COMPLETE {job.job_id}")[0][5] == SUCCEEDED
    assert exists(simulator, "t")


@pytest.mark.parametrize("how", ["cut", "57014", "timeout", "cancel"])
def test_a_job_goes_on_whatever_its_client_is_told(simulator: Simulator, client: Client, how: str) -> None:
    simulator.jobs.plan(Fate(hold=True))
    expected = "57014"
    if how == "cut":
        simulator.arm(Fault(when=DURING, cut=True))
        expected = ""
    elif how == "57014":
        simulator.arm(Fault(when=DURING, sqlstate="57014"))
    elif how == "timeout":
        client("SET statement_timeout = '50ms'")
    else:
        threading.Timer(0.2, client.connection.cancel_safe).start()
    assert client.refusal("CREATE TABLE t (id int)") == expected
    assert client.told("waiting for job") is (how != "cut")
    assert not exists(simulator, "t")
    simulator.jobs.release()
    simulator.jobs.find("CREATE TABLE t", status=SUCCEEDED)
    assert exists(simulator, "t")


def test_whoever_waits_for_a_paused_job_is_told_so(simulator: Simulator, client: Client) -> None:
    simulator.jobs.plan(Fate(end=PAUSED))
    assert client.refusal("CREATE TABLE t (id int)") == "XXUUU"
    job = simulator.jobs.find("CREATE TABLE t", status=PAUSED)
    assert client("SELECT status FROM [SHOW JOBS]") == [(PAUSED,)]
    client(f"RESUME JOB {job.job_id}")
    assert client(f"SHOW JOB WHEN COMPLETE {job.job_id}")[0][5] == SUCCEEDED
    assert exists(simulator, "t")


def test_a_running_job_can_be_paused_and_canceled(simulator: Simulator, client: Client) -> None:
    simulator.jobs.plan(Fate(hold=True))
    pause = threading.Timer(
        0.1, lambda: simulator.jobs.pause(simulator.jobs.find("TABLE t", status="running").job_id)
    )
    pause.start()
    assert client.refusal("CREATE TABLE t (id int)") == "XXUUU"
    job = simulator.jobs.find("TABLE t", status=PAUSED)
    client(f"CANCEL JOB {job.job_id}")
    simulator.jobs.release()
    assert simulator.jobs.find("TABLE t").status == CANCELED
    assert not exists(simulator, "t")
    assert client.refusal(f"PAUSE JOB {job.job_id}") == "22023"


@pytest.mark.parametrize(("end", "applied"), [(FAILED, False), (REVERT_FAILED, True), (CANCELED, False)])
def test_a_job_that_comes_to_no_good_end(
    simulator: Simulator, client: Client, end: str, applied: bool
) -> None:
    simulator.jobs.plan(
        Fate(end=end, applied=applied, sqlstate="23505", message="no room"), matching="create"
    )
    assert client.refusal("CREATE TABLE t (id int)") == ("57014" if end == CANCELED else "23505")
    job = simulator.jobs.find("CREATE TABLE t")
    assert (job.status, job.error) == (end, "no room")
    assert job.finished is not None
    assert exists(simulator, "t") is applied
    client("CREATE TABLE IF NOT EXISTS t (id int)")


def test_what_the_data_refuses_fails_the_job(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int)")
    client("INSERT INTO t VALUES (1), (1)")
    assert client.refusal("CREATE UNIQUE INDEX t_id ON t (id)") == "23505"
    assert simulator.jobs.find("UNIQUE INDEX").status == FAILED


def test_jobs_of_others(simulator: Simulator, client: Client) -> None:
    paused = simulator.jobs.add("ALTER TABLE x ADD COLUMN y INT8", status=PAUSED)
    simulator.jobs.add("GC", job_type="SCHEMA CHANGE GC")
    assert client("SELECT job_id FROM [SHOW JOBS] WHERE status = 'paused'") == [(paused,)]
    simulator.jobs.set_status(paused, SUCCEEDED)
    assert client(f"SELECT status FROM [SHOW JOB {paused}]") == [(SUCCEEDED,)]


def test_a_job_has_the_search_path_and_role_of_its_session(simulator: Simulator, client: Client) -> None:
    client("CREATE SCHEMA side")
    client("SET search_path = side")
    client("CREATE TABLE t (id int)")
    assert exists(simulator, "side.t")


# 5, locks; 8 and rule 15, what the adapter must not touch; 9, what has no grammar


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("LOCK TABLE t", "42601"),
        ("SET CONSTRAINTS ALL IMMEDIATE", "0A000"),
        ("SET LOCAL SESSION AUTHORIZATION DEFAULT", "42601"),
        ("LISTEN x", "0A000"),
        ("NOTIFY x", "0A000"),
        ("UNLISTEN *", "0A000"),
        ("VACUUM", "0A000"),
        ("CLUSTER", "0A000"),
        ("REINDEX TABLE t", "0A000"),
        ("CREATE DOMAIN d AS int", "0A000"),
        ("CREATE RULE r AS ON INSERT TO t DO NOTHING", "0A000"),
        ("CREATE PUBLICATION p", "0A000"),
        ("CREATE TABLE u (id int REFERENCES t DEFERRABLE)", "0A000"),
        ("CREATE TABLE u (id int, EXCLUDE USING gist (id WITH =))", "0A000"),
        ("CREATE TABLE u () INHERITS (t)", "0A000"),
        ("CREATE TEMP TABLE u (id int)", "0A000"),
        ("CREATE TABLE u (id int) TABLESPACE x", "0A000"),
        ("DISCARD PLANS", "42601"),
        ("PREPARE TRANSACTION 'x'", "0A000"),
        ("SELECT 1; LOCK TABLE t", "42601"),
        ("SELECT pg_control_system()", "42883"),
        ("SELECT * FROM pg_locks", "42P01"),
        ("SELECT * FROM pg_catalog.pg_stat_activity", "42P01"),
        ("SELECT * FROM pg_stat_progress_create_index", "42P01"),
        ("SELECT xmin FROM pg_class", "42703"),
        ("SELECT c.xmin FROM pg_class c", "42703"),
        ("SELECT txid_current()", "42883"),
        ("SELECT pg_terminate_backend(1)", "42883"),
    ],
)
def test_what_is_not_there(simulator: Simulator, client: Client, text: str, sqlstate: str) -> None:
    assert client.refusal(text) == sqlstate
    assert [state for state, _ in simulator.refusals] == [sqlstate]
    assert simulator.violations == []


@pytest.mark.parametrize(
    "text",
    [
        "DISCARD ALL",
        "SET SESSION AUTHORIZATION DEFAULT",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CREATE INDEX CONCURRENTLY i ON t (id)",
        "SELECT id FROM t FOR UPDATE SKIP LOCKED",
        "SELECT current_timestamp(), now()",
        "SELECT a.attishidden FROM pg_catalog.pg_attribute a LIMIT 1",
        "SELECT 'LOCK TABLE crdb_internal.jobs', pg_backend_pid()",
        "BEGIN; SAVEPOINT a; RELEASE SAVEPOINT a; COMMIT",
    ],
)
def test_what_is_there(client: Client, text: str) -> None:
    client("CREATE TABLE t (id int)")
    client(text)


def test_advisory_locks_are_not_what_they_seem(
    simulator: Simulator, client: Client, connect: Connect
) -> None:
    simulator.tolerant = True
    other = connect()
    for each in (client, other):
        assert each("SELECT pg_try_advisory_lock(1)") == [(True,)]
    assert really(simulator, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    assert client.refusal("SELECT pg_advisory_lock(1)") == "42883"
    assert client.refusal("SELECT pg_advisory_xact_lock(1)") == "42883"
    assert len(simulator.violations) == 4


@pytest.mark.parametrize(
    "text",
    ["SELECT * FROM crdb_internal.jobs", 'SELECT * FROM "system".jobs', "SET allow_unsafe_internals = true"],
)
def test_unsafe_internals_are_refused_and_remembered(simulator: Simulator, client: Client, text: str) -> None:
    assert client.refusal(text) == "42501"
    assert simulator.violations == [text]
    simulator.tolerant = True


def test_a_session_is_ended_by_its_name_and_not_by_its_process(
    simulator: Simulator, client: Client, connect: Connect
) -> None:
    other = connect()
    identity = other("SHOW session_id")[0][0]
    client(f"CANCEL SESSION '{identity}'")
    assert other.refusal("SELECT 1") in ("57P01", "")


# the protocol


def test_parameters_and_prepared_statements(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int PRIMARY KEY)")
    connection = client.connection
    for number in range(3):
        connection.execute("INSERT INTO t VALUES (%s)", [number], prepare=True)
    simulator.arm(Fault(matching="INSERT", sqlstate="40001"))
    with pytest.raises(psycopg.errors.SerializationFailure):
        connection.execute("INSERT INTO t VALUES (%s)", [9])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM crdb_internal.jobs WHERE 1 = %s", [1])
    simulator.tolerant = True
    with connection.transaction():
        connection.execute("INSERT INTO t VALUES (%s)", [10])
    connection.execute("CREATE TABLE u (id int)", binary=True)
    assert simulator.jobs.find("TABLE u").status == SUCCEEDED
    assert really(simulator, "SELECT array_agg(id ORDER BY id) FROM t") == [([0, 1, 2, 10],)]


def test_rows_by_copy(simulator: Simulator, client: Client) -> None:
    client("CREATE TABLE t (id int)")
    with client.connection.cursor().copy("COPY t FROM STDIN") as copy:
        for number in range(1000):
            copy.write_row([number])
    with client.connection.cursor().copy("COPY t TO STDOUT") as out:
        assert len(list(out.rows())) == 1000


def test_comments_and_semicolons_in_them(client: Client) -> None:
    assert client("/* a;b */ SELECT 1 -- c;d\n;\n-- e;f\nSELECT 2;;") == [(2,)]
    assert client(" ; -- nothing") == []


def test_a_query_ends_with_its_client(simulator: Simulator, client: Client) -> None:
    client.connection.pgconn.send_query(b"SELECT pg_sleep(30)")
    client.connection.pgconn.flush()
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    deadline = time.monotonic() + 10
    while really(simulator, busy) != [(1,)]:
        assert time.monotonic() < deadline
    client.connection.close()
    while really(simulator, busy) != [(0,)]:
        assert time.monotonic() < deadline


def test_a_cancel_request_reaches_a_query(client: Client) -> None:
    threading.Timer(0.2, client.connection.cancel_safe).start()
    assert client.refusal("SELECT pg_sleep(30)") == "57014"


async def test_clients_of_another_loop(simulator: Simulator, connect: Connect) -> None:
    async def count() -> int:
        async with await psycopg.AsyncConnection.connect(simulator.dsn, autocommit=True) as connection:
            row = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
            return int(row[0]) if row else -1

    connect()("CREATE TABLE t (id int)")
    assert await asyncio.gather(*(count() for _ in range(5))) == [0] * 5
