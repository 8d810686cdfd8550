"""The sample migrations keep what their comments promise.

They run on real servers by the same operations as daemon and command line use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.applying import bring, database_at, declare
from tests.integration.sample_content import CATALOG, FILES, NEWEST, everything_up

DEFAULT_CUSTOMER = "00000000-0000-4000-8000-000000000001"
ACME, GLOBEX = "aaaaaaaa-0000-4000-8000-000000000000", "bbbbbbbb-0000-4000-8000-000000000000"

Connection = psycopg.Connection[tuple[Any, ...]]


# running and looking


async def bring_to(dsn: str, version: int) -> None:
    database = database_at(dsn)
    try:
        outcome = await bring(database, declare(CATALOG, version))
    finally:
        await database.close()
    assert outcome.problem is None, outcome.problem
    assert outcome.plan is not None
    assert outcome.plan.in_sync, outcome.plan.refusals


def connect(dsn: str) -> Connection:
    return psycopg.connect(dsn, autocommit=True)


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


SCHEMA = """
SELECT 'column', table_name, column_name, data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
       || ' ' || coalesce(generation_expression, '')
       || ' ' || row_number() OVER (PARTITION BY table_name ORDER BY ordinal_position)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'index', tablename, indexname, indexdef || ' ' || indisvalid
FROM pg_indexes JOIN pg_index ON indexrelid = quote_ident(indexname)::regclass WHERE schemaname = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) || ' ' || convalidated
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


def schema(dsn: str) -> list[tuple[Any, ...]]:
    """Every column, index and constraint of the samples' tables, in a form that can be compared."""
    return [row for row in rows(dsn, SCHEMA) if not row[1].startswith("schema_migrations")]


# what is in the tables

LEGACY = """
CREATE TABLE users (
    id uuid PRIMARY KEY, email varchar(200) NOT NULL, name text NOT NULL, nickname text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX emails ON users (lower(email));
CREATE TABLE articles (
    id uuid PRIMARY KEY, author_id uuid NOT NULL REFERENCES users, title text NOT NULL, body text NOT NULL DEFAULT '',
    published_at timestamptz, created_at timestamptz NOT NULL DEFAULT now()
);
"""
"""Tables made by hand long before, not quite as the first migration would make them."""

LEGACY_ROWS = """
INSERT INTO users (id, email, name)
SELECT ('10000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'u' || n || '@example.org', 'User ' || n
FROM generate_series(1, 20) n;
INSERT INTO articles (id, author_id, title, published_at)
SELECT ('20000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
       ('10000000-0000-4000-8000-' || lpad((n % 20 + 1)::text, 12, '0'))::uuid,
       'Article ' || n, CASE WHEN n % 2 = 0 THEN now() - n * interval '1 hour' END
FROM generate_series(1, 200) n;
"""


def tenant_rows(customer: str) -> str:
    """A customer with two sites, a user who signs in by a provider, an article and some usage. Its rows' ids are its own."""
    prefix = customer[:8]
    return f"""
INSERT INTO customers (id, slug, name) VALUES ('{customer}', '{prefix}', 'Customer {prefix}');
INSERT INTO sites (id, customer_id, address, name) VALUES
    ('{prefix}-0000-4000-8000-000000000001', '{customer}', '{prefix}.example', 'Home'),
    ('{prefix}-0000-4000-8000-000000000002', '{customer}', '{prefix}.example:8080/News/today', 'News');
INSERT INTO users (id, customer_id, email, name)
VALUES ('{prefix}-0000-4000-8000-000000000003', '{customer}', 'ann@{prefix}.example', 'Ann');
INSERT INTO user_identities (customer_id, user_id, provider, subject)
VALUES ('{customer}', '{prefix}-0000-4000-8000-000000000003', 'https://id.example', '{prefix}');
INSERT INTO articles (id, customer_id, site_id, author_id, title, published_at)
VALUES ('{prefix}-0000-4000-8000-000000000004', '{customer}', '{prefix}-0000-4000-8000-000000000001',
        '{prefix}-0000-4000-8000-000000000003', 'Hello', now());
INSERT INTO resource_usage (customer_id, resource, period_start, quantity)
VALUES ('{customer}', 'articles', '2025-01-01', 1);
"""


def execute(dsn: str, script: str) -> None:
    with connect(dsn) as connection:
        connection.execute(script.encode())


LEGACY_CONTENT = (
    "SELECT id, email, name, created_at FROM users ORDER BY id",
    "SELECT id, author_id, title, body, published_at, created_at FROM articles ORDER BY id",
)
TENANT_CONTENT = (
    "SELECT id, slug, name, created_at FROM customers ORDER BY id",
    "SELECT id, customer_id, address, name, created_at FROM sites ORDER BY id",
    "SELECT * FROM users ORDER BY id",
    "SELECT * FROM articles ORDER BY id",
    "SELECT * FROM user_identities ORDER BY id",
    "SELECT * FROM resource_usage ORDER BY customer_id, resource, period_start",
)


def content(dsn: str, queries: tuple[str, ...]) -> list[list[tuple[Any, ...]]]:
    return [rows(dsn, query) for query in queries]


# up and down


async def test_up_down_up_on_an_empty_database(any_database: str) -> None:
    await bring_to(any_database, NEWEST)
    newest = schema(any_database)
    assert content(any_database, TENANT_CONTENT) == [[]] * len(TENANT_CONTENT)

    await bring_to(any_database, 0)
    # the two tables from before tenancy are never dropped
    before_tenancy = schema(any_database)
    assert {row[1] for row in before_tenancy} == {"articles", "users"}
    assert not [row for row in before_tenancy if row[2] in ("customer_id", "site_id")]

    await bring_to(any_database, NEWEST)
    assert schema(any_database) == newest
    await bring_to(any_database, 0)
    assert schema(any_database) == before_tenancy


async def test_each_down_undoes_exactly_its_up(any_database: str) -> None:
    schemas = {}
    for version in range(1, NEWEST + 1):
        await bring_to(any_database, version)
        schemas[version] = schema(any_database)
    for version in range(NEWEST - 1, 0, -1):
        await bring_to(any_database, version)
        assert schema(any_database) == schemas[version], f"the down of {version + 1} leaves something behind"
    for version in range(2, NEWEST + 1):
        assert schemas[version] != schemas[version - 1]


async def test_tables_and_rows_from_before_come_through_up_and_down(any_database: str) -> None:
    execute(any_database, LEGACY + LEGACY_ROWS)
    legacy_schema = schema(any_database)
    legacy_content = content(any_database, LEGACY_CONTENT)

    await bring_to(any_database, NEWEST)
    assert content(any_database, LEGACY_CONTENT) == legacy_content
    under = "SELECT DISTINCT customer_id::text FROM users UNION SELECT customer_id::text FROM articles"
    assert rows(any_database, under) == [(DEFAULT_CUSTOMER,)]
    newest = schema(any_database)

    await bring_to(any_database, 0)
    assert schema(any_database) == legacy_schema
    assert content(any_database, LEGACY_CONTENT) == legacy_content

    await bring_to(any_database, NEWEST)
    assert schema(any_database) == newest
    assert content(any_database, LEGACY_CONTENT) == legacy_content
    assert rows(any_database, under) == [(DEFAULT_CUSTOMER,)]


async def test_users_and_articles_of_every_customer_outlive_tenancy(any_database: str) -> None:
    execute(any_database, LEGACY + LEGACY_ROWS)
    await bring_to(any_database, NEWEST)
    execute(any_database, tenant_rows(ACME) + tenant_rows(GLOBEX))
    everything = content(any_database, LEGACY_CONTENT)
    assert [len(table) for table in everything] == [22, 202]

    await bring_to(any_database, 0)
    assert content(any_database, LEGACY_CONTENT) == everything

    await bring_to(any_database, NEWEST)
    assert content(any_database, LEGACY_CONTENT) == everything


async def test_the_changes_after_tenancy_keep_every_row_of_every_customer(any_database: str) -> None:
    execute(any_database, LEGACY + LEGACY_ROWS)
    await bring_to(any_database, 1)
    execute(any_database, tenant_rows(ACME))
    await bring_to(any_database, NEWEST)
    execute(any_database, tenant_rows(GLOBEX))
    everything = content(any_database, TENANT_CONTENT)

    for version in (3, 2, 1, NEWEST):
        await bring_to(any_database, version)
        assert content(any_database, TENANT_CONTENT) == everything, f"at version {version}"


# what each migration is for


@pytest.mark.parametrize(
    ("statement", "constraints"),
    [
        (
            f"UPDATE articles SET author_id = 'bbbbbbbb-0000-4000-8000-000000000003' WHERE customer_id = '{ACME}'",
            {"articles_customer_author_fkey"},
        ),
        (
            f"UPDATE articles SET site_id = 'bbbbbbbb-0000-4000-8000-000000000001' WHERE customer_id = '{ACME}'",
            {"articles_customer_site_fkey"},
        ),
        (
            f"INSERT INTO user_identities (customer_id, user_id, provider, subject) "
            f"VALUES ('{ACME}', 'bbbbbbbb-0000-4000-8000-000000000003', 'https://id.example', 'mallory')",
            {"user_identities_customer_user_fkey"},
        ),
        (
            f"UPDATE users SET customer_id = '{GLOBEX}' WHERE customer_id = '{ACME}'",
            {"articles_customer_author_fkey", "user_identities_customer_user_fkey"},
        ),
        (
            f"UPDATE sites SET customer_id = '{GLOBEX}' WHERE customer_id = '{ACME}'",
            {"articles_customer_site_fkey"},
        ),
        (
            "INSERT INTO users (customer_id, email, name) VALUES (gen_random_uuid(), 'x@example.org', 'X')",
            {"users_customer_fkey"},
        ),
        (
            "INSERT INTO sites (customer_id, address, name) VALUES (gen_random_uuid(), 'x.example', 'X')",
            {"sites_customer_id_fkey"},
        ),
        (
            "INSERT INTO resource_usage (customer_id, resource, period_start) "
            "VALUES (gen_random_uuid(), 'articles', '2025-01-01')",
            {"resource_usage_customer_id_fkey"},
        ),
        (
            f"DELETE FROM customers WHERE id = '{ACME}'",
            {"sites_customer_id_fkey", "users_customer_fkey", "resource_usage_customer_id_fkey"},
        ),
    ],
)
async def test_rows_of_two_customers_cannot_be_mixed(
    fresh_database: str, statement: str, constraints: set[str]
) -> None:
    await bring_to(fresh_database, NEWEST)
    execute(fresh_database, tenant_rows(ACME) + tenant_rows(GLOBEX))
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as caught:
        execute(fresh_database, statement)
    assert caught.value.diag.constraint_name in constraints


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO users (email, name) VALUES ('x@example.org', 'X')", psycopg.errors.NotNullViolation),
        (
            f"INSERT INTO articles (customer_id, author_id, title) "
            f"VALUES ('{ACME}', 'aaaaaaaa-0000-4000-8000-000000000003', 'No site')",
            psycopg.errors.NotNullViolation,
        ),
        (
            f"INSERT INTO user_identities (customer_id, user_id, provider, subject) "
            f"VALUES ('{ACME}', 'aaaaaaaa-0000-4000-8000-000000000003', 'https://id.example', 'bbbbbbbb')",
            psycopg.errors.UniqueViolation,
        ),
        (
            f"INSERT INTO sites (customer_id, address, name) VALUES ('{ACME}', 'bbbbbbbb.example', 'Theirs')",
            psycopg.errors.UniqueViolation,
        ),
        (
            f"INSERT INTO sites (customer_id, address, name) VALUES ('{ACME}', 'https://a.example', 'URL')",
            psycopg.errors.CheckViolation,
        ),
        (
            f"INSERT INTO sites (customer_id, address, name) VALUES ('{ACME}', 'A.example', 'Upper case')",
            psycopg.errors.CheckViolation,
        ),
        (
            f"INSERT INTO resource_usage (customer_id, resource, period_start) VALUES ('{ACME}', 'x', '2025-01-02')",
            psycopg.errors.CheckViolation,
        ),
        ("UPDATE resource_usage SET quantity = -1", psycopg.errors.CheckViolation),
        ("UPDATE plan_quotas SET monthly_quantity = 0", psycopg.errors.CheckViolation),
        ("UPDATE customers SET plan = 'golden'", psycopg.errors.ForeignKeyViolation),
        ("UPDATE sites SET host = 'elsewhere.example'", psycopg.errors.GeneratedAlways),
    ],
)
async def test_what_makes_no_sense_is_refused(
    fresh_database: str, statement: str, error: type[psycopg.Error]
) -> None:
    await bring_to(fresh_database, NEWEST)
    execute(fresh_database, tenant_rows(ACME) + tenant_rows(GLOBEX))
    with pytest.raises(error):
        execute(fresh_database, statement)


async def test_the_parts_of_an_address_follow_it(any_database: str) -> None:
    await bring_to(any_database, 1)
    execute(any_database, tenant_rows(ACME))
    await bring_to(any_database, 2)
    execute(any_database, tenant_rows(GLOBEX))
    execute(any_database, "UPDATE sites SET address = 'c.example/' WHERE address = 'bbbbbbbb.example'")
    assert rows(any_database, 'SELECT address, host, path FROM sites ORDER BY address COLLATE "C"') == [
        ("aaaaaaaa.example", "aaaaaaaa.example", ""),
        ("aaaaaaaa.example:8080/News/today", "aaaaaaaa.example:8080", "/News/today"),
        ("bbbbbbbb.example:8080/News/today", "bbbbbbbb.example:8080", "/News/today"),
        ("c.example/", "c.example", "/"),
    ]


async def test_customers_from_before_plans_have_no_limit(any_database: str) -> None:
    await bring_to(any_database, 3)
    execute(any_database, tenant_rows(ACME))
    await bring_to(any_database, 4)
    execute(any_database, tenant_rows(GLOBEX))
    plans = "SELECT id::text, plan FROM customers ORDER BY 1"
    assert rows(any_database, plans) == [(ACME, "unlimited"), (GLOBEX, "starter")]


async def test_usage_is_counted_by_one_statement(fresh_database: str) -> None:
    await bring_to(fresh_database, 1)
    execute(fresh_database, tenant_rows(ACME))
    for _ in range(2):
        execute(
            fresh_database,
            f"INSERT INTO resource_usage (customer_id, resource, period_start, quantity) "
            f"VALUES ('{ACME}', 'articles', '2025-01-01', 5) ON CONFLICT (customer_id, resource, period_start) "
            f"DO UPDATE SET quantity = resource_usage.quantity + excluded.quantity",
        )
    assert rows(fresh_database, "SELECT quantity FROM resource_usage") == [(11,)]


# the queries that the comments name


class NamedQuery(NamedTuple):
    query: str
    index_name: str
    covering: bool


_QUERY = re.compile(
    r"-- Query:\n(?P<query>(?:--   .*\n)+)"
    r"(?P<statement>CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?(?P<index>\w+)[^;]*);"
)


def named_queries() -> Iterator[NamedQuery]:
    for content in FILES.values():
        for match in _QUERY.finditer(content.decode()):
            query = match["query"].replace("--   ", "").strip()
            yield NamedQuery(query, match["index"], " INCLUDE " in match["statement"].replace("\n", " "))


def test_every_index_names_its_query() -> None:
    made = set(re.findall(r"^CREATE (?:UNIQUE )?INDEX.*?(\w+)(?:\n| ON)", everything_up(), re.MULTILINE))
    # the target of foreign keys is there for them
    assert made - {query.index_name for query in named_queries()} == {"users_customer_id_key"}
    assert [query.index_name for query in named_queries() if query.covering] == [
        "articles_published_idx",
        "user_identities_subject_key",
        "sites_host_idx",
        "articles_author_idx",
    ]


async def test_named_queries_use_their_indexes(any_database: str) -> None:
    execute(any_database, LEGACY + LEGACY_ROWS)
    await bring_to(any_database, NEWEST)
    execute(any_database, tenant_rows(ACME) + tenant_rows(GLOBEX))
    with connect(any_database) as connection:
        connection.execute("VACUUM ANALYZE")
        # on tables this small the planner would rather not use any index; what counts is that it can
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_bitmapscan = off")
        connection.execute("SET enable_sort = off")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        for number, named in enumerate(named_queries()):
            plan = plan_of(connection, f"q{number}", named.query)
            assert named.index_name in plan, f"{named.query}\n{plan}"
            assert "Sort" not in plan, f"{named.query}\n{plan}"
            assert ("Index Only Scan" in plan) is named.covering, f"{named.query}\n{plan}"


def plan_of(connection: Connection, name: str, query: str) -> str:
    parameters = max((int(number) for number in re.findall(r"\$(\d)", query)), default=0)
    connection.execute(f"PREPARE {name} AS {query}".encode())
    nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    lines = connection.execute(f"EXPLAIN (COSTS off) EXECUTE {name}{nulls}".encode()).fetchall()
    return "\n".join(line for (line,) in lines)
