"""The blocks of SQL of the two dialects, held against each other; and CockroachDB's against what is known of its grammar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import reconciler.database
from reconciler.database.queries import Queries, read_blocks
from tests.cockroach.grammar import literal, rewritten, split
from tests.cockroach.simulator import VERSION

_FOLDER = Path(reconciler.database.__file__).parent

ONLY_COCKROACHDB = {
    "schema_changes": "changes of the schema are jobs there",
    "reached": "a commit may be told to have failed and be in force",
}
NOT_ASKED_THERE = {
    "introduce_setting": "settings are SET one by one: no statement says which process serves it",
    "try_advisory_lock": "there are no advisory locks",
    "release_advisory_lock": "there are no advisory locks",
    "take_lock_row": "goes with the advisory lock",
    "take_lock_row_of_others": "goes with the advisory lock",
    "strict_fence": "goes with the advisory lock",
    "end_lock_session": "a lease is held by no session",
    "leave_nothing_behind": "a pooler before it cannot be found out",
    "trusted": "a part of others, which has its own words there",
    "refuse_active": "nothing asks for what tables of strangers would run: triggers run with their owner's rights",
    "hold_journal_for_writing": "as refuse_active",
    "hold_lock_for_writing": "as refuse_active",
    "watch_name": "no process is watched: which one works is not told",
    "watch_blockers": "as watch_name",
    "watch_progress": "as watch_name: the job tells",
    "watch_copy": "as watch_name",
    "resolve_index": "names of indexes are those of their table",
    "state_of_index": "the others that begin so are asked, by table or by schema",
    "state_of_reindex": "there is no REINDEX",
    "state_of_tablespace": "there are none",
    "state_of_subscription": "there are none",
    "state_of_prepared": "there is no two-phase commit",
    "state_of_partition": "tables are partitioned otherwise",
}
_ROWS = ("started", "succeeded", "not_run")


def own_names(dialect: str) -> set[str]:
    """The blocks that the dialect's file has words for."""
    text = (_FOLDER / f"{dialect}.sql").read_text(encoding="utf-8")
    names = re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)
    assert len(names) == len(set(names)), "a block is there twice"
    return set(names)


def filled(queries: Queries, name: str) -> str:
    """A block with something for each of its parameters."""
    wanted = set(re.findall(r"(?<!:):([a-z_]+)", read_blocks("cockroachdb")[name]))
    text = queries(name, **dict.fromkeys(wanted, 1))
    if name in _ROWS:
        text = queries.attempts(text)
    for placeholder in ("prepared", "versions"):
        text = text.replace("{" + placeholder + "}", {"prepared": "done", "versions": "1"}[placeholder])
    return text


ASKED = sorted(name for name in read_blocks("cockroachdb") if name not in NOT_ASKED_THERE)


def test_what_only_one_dialect_has_is_listed_with_a_reason() -> None:
    only_there = own_names("cockroachdb") - own_names("postgresql")
    # what a statement took effect on is looked for in the catalogue there: every change of the schema runs alone
    assert {name for name in only_there if not name.startswith("state_of_")} == set(ONLY_COCKROACHDB)
    assert set(NOT_ASKED_THERE) <= own_names("postgresql")
    assert not set(NOT_ASKED_THERE) & own_names("cockroachdb")


@pytest.mark.parametrize("name", ASKED)
def test_cockroachdb_has_a_grammar_for_what_it_is_told(name: str) -> None:
    queries = Queries("cockroachdb", "public", "app", literal)
    for statement in split(filled(queries, name)):
        # also looks for functions, tables and columns that are not there
        rewritten(statement, VERSION, lambda _: "(SELECT 1)")


def test_every_block_that_the_code_names_is_there() -> None:
    known = set(read_blocks("cockroachdb"))
    for path in _FOLDER.glob("*.py"):
        for name in re.findall(r"queries\(\s*\"(\w+)\"", path.read_text(encoding="utf-8")):
            assert name in known, f"{path.name} asks for {name}"


def test_blocks_that_take_the_same_are_given_the_same() -> None:
    """Whoever fills a block need not know which dialect's it is: what one of them wants and the other has not is known."""
    postgresql, cockroachdb = read_blocks("postgresql"), read_blocks("cockroachdb")
    for name in own_names("cockroachdb") & own_names("postgresql"):
        wanted = [set(re.findall(r"(?<!:):([a-z_]+)", blocks[name])) for blocks in (postgresql, cockroachdb)]
        extra = wanted[1] - wanted[0]
        assert extra <= _EXTRA.get(name, set()), f"{name} wants {sorted(extra)} on CockroachDB only"


_EXTRA = {
    "identity": {"place"},
    "resolve_relation": {"qualified"},
}
