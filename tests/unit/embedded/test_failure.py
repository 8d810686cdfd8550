from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.embedded.failure import explain


@pytest.mark.parametrize(
    ("output", "cause", "remedy"),
    [
        (
            'PANIC:  could not write to file "pg_wal/xlogtemp.29": No space left on device',
            "disk is full",
            "free some",
        ),
        (
            "FATAL:  database files are incompatible with server\nDETAIL: ...",
            "another version",
            "delete /data",
        ),
        ('FATAL:  could not resize shared memory segment "/PostgreSQL.1"', "shared memory", "--shm-size"),
        ('FATAL:  lock file "postmaster.pid" already exists', "another server", "/data/postmaster.pid"),
        ('FATAL:  data directory "/data" has wrong ownership', "may not be used", "/data"),
        (
            "initdb: error: could not look up effective user ID 12345: user does not exist",
            "no name",
            "/etc/passwd",
        ),
        ("postgres: /lib/libc.so.6: version `GLIBC_2.28' not found", "do not fit", "apt-get"),
        ("PANIC:  could not locate a valid checkpoint record", "damaged", "backup"),
        ("something new: could not flurb", "see what it wrote", "/log"),
        ("", "see what it wrote", "/log"),
    ],
)
def test_what_a_log_says_becomes_a_cause_and_a_remedy(output: str, cause: str, remedy: str) -> None:
    problem = explain("postgres", output, Path("/log"), Path("/data"))
    assert cause in problem.message
    assert remedy in problem.remedy
    assert problem.detail == output


def test_the_message_ends_with_the_line_that_matters() -> None:
    output = "LOG:  starting\nFATAL:  could not flurb\nLOG:  database system is shut down"
    problem = explain("postgres", output, Path("/log"), Path("/data"))
    assert problem.message.endswith("FATAL:  could not flurb")
