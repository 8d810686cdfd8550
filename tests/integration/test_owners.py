"""Tables that somebody without our rights has put where ours belong: whoever owns a table has code run by all who use it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import psycopg
import pytest

from reconciler.database.reading import ADVISORY_KEY
from reconciler.model import ProblemError, Reason
from reconciler.operations.declaration import plan_for
from tests.applying import actor, bring, database_at, declare, table
from tests.command_line import CommandLine, manifest, three_tables
from tests.git import Repository
from tests.looking import exists, journal, rows
from tests.servers import Role, TestServer

FILES = {"1_a.sql": table("a")}
COLUMNS = {
    "schema_migrations": "version bigint PRIMARY KEY, name varchar(255), applied_at timestamp, checksum varchar(64), "
    "execution_time_ms integer, status varchar(20), error_message text",
    "schema_migrations_journal": "recorded_at timestamptz, id uuid, attempt uuid, event text, message text",
    "schema_migrations_lock": "id integer PRIMARY KEY, owner uuid, holder text, mode varchar(10), fence bigint, since timestamptz, "
    "renewed_at timestamptz, expires_at timestamptz, environment text, database_name text, repository text",
}


class Place(NamedTuple):
    """A database in whose schema `public` anybody may make tables.

    `lowly` is nobody in particular, `migrator` the role that migrates.
    """

    server: TestServer
    name: str
    lowly: Role
    migrator: Role

    def dsn(self, role: Role | None = None) -> str:
        """The way in for a role; the superuser's without one."""
        return self.server.dsn(self.name, user=role.name) if role is not None else self.server.dsn(self.name)

    def do(self, statements: str, role: Role | None = None) -> None:
        """Run statements as a role."""
        with psycopg.connect(self.dsn(role), autocommit=True) as connection:
            connection.execute(statements.encode())

    def trap(self, *names: str) -> None:
        """Let `lowly` make tables of ours first, and see who writes into them or reads them."""
        self.do(
            """
            CREATE TABLE caught (who text);
            GRANT ALL ON caught TO PUBLIC;
            CREATE FUNCTION catch() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN INSERT INTO public.caught VALUES (current_user); RETURN NEW; END$$;
            """
            + "".join(
                f"""
            CREATE TABLE {name} ({COLUMNS[name]});
            GRANT ALL ON {name} TO PUBLIC;
            CREATE TRIGGER catch BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION catch();
            """
                for name in names
            ),
            self.lowly,
        )

    @property
    def caught(self) -> list[tuple[object, ...]]:
        """Whose rights `lowly` has had."""
        return rows(self.dsn(), "SELECT who FROM caught")


@pytest.fixture
def place(any_server: TestServer) -> Iterator[Place]:
    """An empty database of the superuser's."""
    name = any_server.create_database()
    lowly, migrator = any_server.create_role(), any_server.create_role()
    any_server.execute("GRANT CREATE ON SCHEMA public TO PUBLIC", name)
    yield Place(any_server, name, lowly, migrator)
    any_server.drop_database(name)
    any_server.drop_role(lowly)
    any_server.drop_role(migrator)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("superuser", [False, True], ids=["migrator", "superuser"])
async def test_a_table_that_somebody_made_before_us_is_not_written_to(
    place: Place, name: str, superuser: bool
) -> None:
    place.trap(name)
    database = database_at(place.dsn(None if superuser else place.migrator))
    outcome = await bring(database, declare(FILES, 1))
    assert outcome.plan is not None
    (problem,) = outcome.plan.refusals
    assert problem.reason is Reason.FOREIGN_HISTORY
    assert f"public.{name}, which belongs to {place.lowly.name}" in problem.message
    assert "OWNER TO" in problem.remedy
    with pytest.raises(ProblemError) as refusal:
        async with database.writer(actor(), acquire_timeout=0):
            raise AssertionError("nobody may write here")
    assert refusal.value.problem.reason is Reason.FOREIGN_HISTORY
    assert (place.caught, exists(place.dsn(), "a")) == ([], False)
    await database.close()


@pytest.mark.parametrize("superuser", [False, True], ids=["migrator", "superuser"])
async def test_a_table_that_is_replaced_later_is_not_written_to(place: Place, superuser: bool) -> None:
    role = None if superuser else place.migrator
    database = database_at(place.dsn(role))
    assert (await bring(database, declare(FILES, 1))).problem is None
    place.do("DROP TABLE schema_migrations_lock", role)
    place.trap("schema_migrations_lock")
    with pytest.raises(ProblemError) as refusal:
        async with database.writer(actor(), acquire_timeout=0):
            raise AssertionError("nobody may write here")
    assert refusal.value.problem.reason is Reason.FOREIGN_HISTORY
    assert place.caught == []
    await database.close()


def test_a_view_that_somebody_made_before_us_is_not_read(place: Place, reconciler: CommandLine) -> None:
    place.do(
        """
        CREATE TABLE caught (who text);
        GRANT ALL ON caught TO PUBLIC;
        CREATE FUNCTION catch() RETURNS bigint LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.caught VALUES (current_user); RETURN 1; END$$;
        CREATE VIEW schema_migrations AS SELECT catch() AS version, ''::text AS name, now()::timestamp AS applied_at,
            ''::text AS checksum, 1 AS execution_time_ms, 'success'::text AS status, ''::text AS error_message, 'up'::text AS direction,
            ''::text AS git_revision;
        CREATE VIEW schema_migrations_lock AS SELECT catch()::int AS id, NULL::uuid AS owner, 'x'::text AS holder, 'advisory'::text AS mode,
            1::bigint AS fence, now() AS since, now() AS renewed_at, now() AS expires_at;
        GRANT ALL ON schema_migrations, schema_migrations_lock TO PUBLIC;
        """,
        place.lowly,
    )
    for role in (None, place.migrator):
        dsn = place.dsn(role)
        assert reconciler("status", "--dsn", dsn).exit == 0
        history = reconciler("history", "--dsn", dsn)
        assert (history.exit, "ForeignHistory" in history.err) == (1, True)
        unlock = reconciler("unlock", "--dsn", dsn, "--reason", "why", "--yes")
        assert (unlock.exit, "ForeignHistory" in unlock.err) == (3, True)
    assert place.caught == []


def test_plan_and_status_say_what_up_will_say(
    place: Place, reconciler: CommandLine, git_repository: Repository
) -> None:
    git_repository.commit("Declare", {"manifests/dev.yaml": manifest(1), **three_tables()})
    reconciler.enter(git_repository.path)
    reconciler.set(ORDERS_DSN=place.dsn())
    place.trap(*COLUMNS)
    place.do("TRUNCATE caught")
    for verb in ("plan", "up", "status"):
        answer = reconciler(verb)
        assert (verb, answer.exit) == (verb, 3)
        assert "another role owns public.schema_migrations" in answer.out + answer.err
    assert place.caught == []


async def test_who_may_only_read_is_told_what_would_run(place: Place) -> None:
    migrator, reader = database_at(place.dsn(place.migrator)), database_at(place.dsn(place.lowly))
    assert (await bring(migrator, declare(FILES, 1))).problem is None
    place.do(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{place.lowly.name}"')
    seen = await plan_for(reader, declare({**FILES, "2_b.sql": table("b")}, 2), datetime.now(UTC))
    assert (len(seen[1].steps), seen[1].refusals) == (1, ())
    for each in (migrator, reader):
        await each.close()


def test_unlock_does_not_write_into_the_tables_of_others(place: Place, reconciler: CommandLine) -> None:
    place.trap("schema_migrations_lock", "schema_migrations_journal")
    place.do(
        "INSERT INTO schema_migrations_lock (id, owner, holder, mode, fence) VALUES (1, gen_random_uuid(), 'x', 'advisory', 1)"
    )
    place.do("TRUNCATE caught")
    with psycopg.connect(place.dsn(), autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
        answer = reconciler("unlock", "--dsn", place.dsn(), "--reason", "why", "--yes")
        assert answer.exit == 0, "ending a session needs no table"
        assert f"belongs to {place.lowly.name}" in answer.out
        assert "not recorded" in answer.out
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    # what is left is a row, and to clear that is to write
    answer = reconciler("unlock", "--dsn", place.dsn(), "--reason", "why", "--yes")
    assert (answer.exit, "ForeignHistory" in answer.err) == (3, True)
    assert place.caught == []


def held_by_migrator(place: Place) -> psycopg.Connection[tuple[object, ...]]:
    """The migrator's tables, and a session of its that holds the lock."""

    async def migrate() -> None:
        database = database_at(place.dsn(place.migrator))
        assert (await bring(database, declare(FILES, 1))).problem is None
        await database.close()

    asyncio.run(migrate())
    place.do(
        "UPDATE schema_migrations_lock SET owner = gen_random_uuid(), holder = 'somebody'", place.migrator
    )
    holder = psycopg.connect(place.dsn(place.migrator), autocommit=True)
    holder.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_KEY])
    return holder


def test_a_superuser_unlocks_what_a_role_that_migrates_holds(place: Place, reconciler: CommandLine) -> None:
    with held_by_migrator(place) as holder:
        answer = reconciler("unlock", "--dsn", place.dsn(), "--reason", "it hangs", "--yes")
        assert (answer.exit, "that is recorded" in answer.out) == (0, True), answer.err
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    (event,) = journal(place.dsn(), "unlock")
    assert (event["outcome"], event["message"].endswith("it hangs")) == ("terminated", True)
    assert rows(place.dsn(), "SELECT owner FROM schema_migrations_lock") == [(None,)]


@pytest.mark.parametrize(
    "trap",
    [
        "CREATE TRIGGER catch BEFORE INSERT ON schema_migrations_journal FOR EACH ROW EXECUTE FUNCTION catch()",
        "CREATE RULE catch AS ON INSERT TO schema_migrations_journal DO ALSO SELECT catching()",
        "ALTER TABLE schema_migrations_journal ALTER host SET DEFAULT catching()",
        # a function of the server's own that runs what it is given
        "ALTER TABLE schema_migrations_journal ALTER sqlstate SET DEFAULT left(query_to_xml('SELECT catching()', true, true, '')::text, 1)",
        "ALTER TABLE schema_migrations_journal ADD CHECK (catching() <> '')",
        "ALTER TABLE schema_migrations_journal ADD extra text GENERATED ALWAYS AS (catching()) STORED",
        "CREATE INDEX ON schema_migrations_journal (catching())",
        "CREATE INDEX ON schema_migrations_journal (event) WHERE catching() <> ''",
        "ALTER TABLE schema_migrations_journal ALTER host TYPE watched",
        "CREATE TABLE child () INHERITS (schema_migrations_journal)",
    ],
)
def test_a_superuser_runs_no_code_of_a_role_that_migrates(
    place: Place, reconciler: CommandLine, trap: str
) -> None:
    with held_by_migrator(place) as holder:
        place.do(
            """
            CREATE TABLE caught (who text);
            GRANT ALL ON caught TO PUBLIC;
            CREATE FUNCTION recording() RETURNS void LANGUAGE sql AS 'INSERT INTO public.caught VALUES (current_user)';
            CREATE FUNCTION catching() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                $$BEGIN PERFORM public.recording(); RETURN 'x'; END$$;
            CREATE FUNCTION catch() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN INSERT INTO public.caught VALUES (current_user); RETURN NEW; END$$;
            CREATE DOMAIN watched AS text CHECK (public.catching() <> '');
            """
            + trap,
            place.migrator,
        )
        place.do("TRUNCATE caught")
        answer = reconciler("unlock", "--dsn", place.dsn(), "--reason", "it hangs", "--yes")
        assert (answer.exit, "not recorded" in answer.out) == (0, True), answer.err
        with pytest.raises(psycopg.OperationalError):
            holder.execute("SELECT 1")
    assert place.caught == []
    assert journal(place.dsn(), "unlock") == []


async def test_tables_of_a_role_that_we_may_be_are_ours(place: Place) -> None:
    owner = place.server.create_role()
    place.do(f'GRANT "{owner.name}" TO "{place.migrator.name}"')
    try:
        as_owner = database_at(place.dsn(place.migrator), role=owner.name)
        assert (await bring(as_owner, declare(FILES, 1))).problem is None
        assert rows(
            place.dsn(), "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE 'schema_migrations%'"
        ) == [(owner.name,)]
        assert (await bring(as_owner, declare({**FILES, "2_b.sql": table("b")}, 2))).problem is None
        # a member has the rights of the role without setting it
        member = database_at(place.dsn(place.migrator))
        assert (
            await bring(member, declare({**FILES, "2_b.sql": table("b"), "3_c.sql": table("c")}, 3))
        ).problem is None
        for each in (as_owner, member):
            await each.close()
    finally:
        place.do(f'DROP OWNED BY "{owner.name}"')
        place.server.drop_role(owner)


async def test_tables_of_the_databases_owner_and_of_a_superuser_are_trusted(place: Place) -> None:
    files = {**FILES, "2_b.sql": table("b")}
    superuser = database_at(place.dsn())
    assert (await bring(superuser, declare(FILES, 1))).problem is None
    place.do(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{place.migrator.name}"')
    migrator = database_at(place.dsn(place.migrator))
    assert (await bring(migrator, declare(files, 2))).problem is None
    for name in COLUMNS:
        place.do(f'ALTER TABLE {name} OWNER TO "{place.lowly.name}"')
    assert (await migrator.observe()).current_version == 2, "to be read, it need not be ours"
    for each in (migrator, superuser):
        with pytest.raises(ProblemError):
            async with each.writer(actor(), acquire_timeout=0):
                raise AssertionError("nobody may write here")
    place.do(f'ALTER DATABASE "{place.name}" OWNER TO "{place.lowly.name}"')
    assert (await bring(superuser, declare({}, 0))).problem is None
    place.do(f'ALTER DATABASE "{place.name}" OWNER TO CURRENT_USER')
    for each in (migrator, superuser):
        await each.close()
