"""The text of the sample migrations and manifests: well-formed, valid on both engines, and as their comments say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from reconciler import lint
from reconciler.manifest import (
    DestructivePolicy,
    DownPolicy,
    Embedded,
    EnvironmentReference,
    Manifest,
    OnFailure,
    read_manifest,
)
from reconciler.model import Script
from reconciler.sqltext import split
from tests.integration.sample_content import CATALOG, FILES, NEWEST, ROOT, everything_up

# by name, because mypy stumbles over the syntax of its type hints
postgast: Any = import_module("postgast")
nodes: Any = import_module("postgast.pg_query_pb2")


# migrations


def scripts() -> Iterator[Script]:
    for migration in CATALOG:
        yield migration.up
        assert migration.down is not None
        yield migration.down


def test_the_files_are_in_order() -> None:
    assert CATALOG.problems == ()
    assert CATALOG.versions == tuple(range(1, NEWEST + 1))
    assert lint.check_catalog(CATALOG) == []
    for migration in CATALOG:
        header = FILES[migration.file_name].decode().splitlines()[:4]
        assert header[0] == f"-- Migration: {migration.file_name}"
        assert header[1] == f"-- Description: {migration.description}"
        assert re.fullmatch(r"-- Date: \d{4}-\d{2}-\d{2}", header[2])
        assert header[3] == "-- Author: Platform team"


def test_the_grammar_sees_the_same_statements() -> None:
    for script in scripts():
        statements = split(script)
        assert len(postgast.parse(script.text).stmts) == len(statements)
        for statement in statements:
            assert len(postgast.parse(statement.text).stmts) == 1


# Refused by CockroachDB: as unimplemented, for want of grammar, or because a sequence makes one node take every insert.
_NOT_THERE = {
    "AlterDomainStmt",
    "ClusterStmt",
    "ConstraintsSetStmt",
    "CreateDomainStmt",
    "CreatePublicationStmt",
    "CreateTableSpaceStmt",
    "DefineStmt",
    "ListenStmt",
    "LockStmt",
    "NotifyStmt",
    "ReindexStmt",
    "RuleStmt",
    "VacuumStmt",
    "deferrable",
    "exclusions",
    "inh_relations",
    "initdeferred",
    "table_space",
    "tablespacename",
}
_NOT_THERE_TYPES = {"bigserial", "serial", "serial4", "serial8", "smallserial"}
_NOT_THERE_CONSTRAINTS = {
    nodes.CONSTR_ATTR_DEFERRABLE,
    nodes.CONSTR_ATTR_DEFERRED,
    nodes.CONSTR_EXCLUSION,
    nodes.CONSTR_IDENTITY,
}


def not_on_cockroachdb(text: str) -> set[str]:
    """What `text` uses of PostgreSQL that CockroachDB does not have."""
    found: set[str] = set()
    for _, node in postgast.walk(postgast.parse(text)):
        kind = type(node).__name__
        found |= {kind} & _NOT_THERE
        found |= {field.name for field, _ in node.ListFields()} & _NOT_THERE
        if isinstance(node, nodes.TypeName):
            found |= {name.string.sval for name in node.names} & _NOT_THERE_TYPES
        if isinstance(node, nodes.Constraint) and node.contype in _NOT_THERE_CONSTRAINTS:
            found.add(nodes.ConstrType.Name(node.contype))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE t (id bigserial)",
        "CREATE TABLE t (id serial PRIMARY KEY)",
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY)",
        "CREATE TABLE t (a int REFERENCES o (id) DEFERRABLE)",
        "ALTER TABLE t ADD CONSTRAINT c UNIQUE (a) INITIALLY DEFERRED",
        "CREATE TABLE t (a int, EXCLUDE USING gist (a WITH =))",
        "CREATE TABLE t () INHERITS (o)",
        "CREATE INDEX i ON t (a) TABLESPACE fast",
        "CREATE DOMAIN d AS text",
        "CREATE RULE r AS ON INSERT TO t DO NOTHING",
        "CREATE AGGREGATE a (int) (SFUNC = int4pl, STYPE = int)",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "SET CONSTRAINTS ALL DEFERRED",
        "REINDEX TABLE t",
        "LOCK TABLE t",
    ],
)
def test_the_check_for_cockroachdb_sees_it(text: str) -> None:
    assert not_on_cockroachdb(text)


def test_the_files_use_nothing_that_cockroachdb_lacks() -> None:
    for script in scripts():
        assert not_on_cockroachdb(script.text) == set(), script.path


def test_no_index_includes_its_primary_key() -> None:
    """CockroachDB has it in every index already, and refuses to name it twice."""
    primary: dict[str, set[str]] = {}
    included: dict[str, set[str]] = {}
    for _, node in postgast.walk(postgast.parse(everything_up())):
        if isinstance(node, nodes.CreateStmt):
            primary[node.relation.relname] = set(_primary_key(node))
        if isinstance(node, nodes.IndexStmt):
            columns = {column.index_elem.name for column in node.index_including_params}
            included.setdefault(node.relation.relname, set()).update(columns)
    assert len(included) == 5
    for table, columns in included.items():
        assert primary[table], table
        assert not columns & primary[table], table


def _primary_key(table: Any) -> Iterator[str]:
    for element in table.table_elts:
        if element.HasField("constraint") and element.constraint.contype == nodes.CONSTR_PRIMARY:
            yield from (key.string.sval for key in element.constraint.keys)
        for constraint in element.column_def.constraints:
            if constraint.constraint.contype == nodes.CONSTR_PRIMARY:
                yield element.column_def.colname


# the manifests


def manifest(environment: str) -> Manifest:
    path = f"manifests/{environment}.yaml"
    return read_manifest(path, (ROOT / path).read_bytes())


def test_dev_runs_by_itself_one_version_below_the_newest() -> None:
    dev = manifest("dev")
    assert (dev.environment, dev.suspend, dev.target_version) == ("dev", False, NEWEST - 1)
    assert [(database.name, database.dsn) for database in dev.databases] == [("dev", Embedded())]


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_other_environments_wait_to_be_turned_on(environment: str) -> None:
    other = manifest(environment)
    assert other.environment == environment
    assert other.suspend
    assert other.target_version in CATALOG
    assert other.migrations == "migrations"
    for database in other.databases:
        assert isinstance(database.dsn, EnvironmentReference)
        # its comment says which variables to set
        assert f" {database.dsn.name}=" in (ROOT / other.path).read_text()


def test_production_is_careful() -> None:
    production = manifest("production")
    assert [database.name for database in production.databases] == ["europe", "america"]
    policy, rollout = production.policy, production.rollout
    assert (policy.down, policy.destructive) == (DownPolicy.DENY, DestructivePolicy.DENY)
    assert (rollout.max_parallel, rollout.on_failure) == (1, OnFailure.STOP)


def test_there_is_no_other_manifest() -> None:
    names = {path.name for path in (ROOT / "manifests").iterdir()}
    assert names == {"dev.yaml", "staging.yaml", "production.yaml"}
