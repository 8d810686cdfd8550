"""reconciler as its users have it: in a virtual environment of its own, not editable, with compiled bytecode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

_ROOT = Path(__file__).parents[2]
_PROGRAMS = Path(__file__).with_name("programs")


class Installed:
    """Runs programs with an installation of reconciler.

    Args:
        programs: the folder of its interpreter and its command.
    """

    def __init__(self, programs: Path) -> None:
        self._bin = programs

    @classmethod
    def here(cls) -> Installed:
        """The installation that runs this."""
        return cls(Path(sys.executable).parent)

    @classmethod
    def fresh(cls, folder: Path) -> Installed:
        """Build the package of this checkout and install it.

        Args:
            folder: an existing, empty folder for the virtual environment.
        """
        installed = cls(folder / "venv" / "bin")
        copy = folder / "package"
        # building leaves files beside the sources
        for name in ("reconciler", "pyproject.toml", "README.md", "LICENSE"):
            source = _ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / name)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        installed.output([installed.python, "-m", "pip", "install", "--quiet", str(copy)])
        return installed

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self._bin / "python")

    @property
    def reconciler(self) -> str:
        """Its command."""
        return str(self._bin / "reconciler")

    def program(self, name: str) -> list[str]:
        """The command line of one of the programs beside this module, run by its interpreter."""
        return [self.python, "-P", str(_PROGRAMS / f"{name}.py")]

    def timed(
        self,
        command: Sequence[str],
        *,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> float:
        """Run a command to its end and return the seconds it took."""
        began = perf_counter()
        self._run(command, folder=folder, variables=variables)
        return perf_counter() - began

    def output(
        self,
        command: Sequence[str],
        *,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command to its end and return what it printed."""
        return self._run(command, folder=folder, variables=variables)

    def peak_memory(self, command: Sequence[str], *, folder: Path, variables: Mapping[str, str]) -> int:
        """Run a command to its end and return the most bytes it had in memory."""
        # a process begins with the memory of the one that started it, so a small one has to
        return int(self.output([*self.program("peak_memory"), *command], folder=folder, variables=variables))

    def _run(
        self,
        command: Sequence[str],
        *,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        return done.stdout


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for whatever is measured: ours without what changes how Python or git work."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "GIT_", "PG", "RECONCILER_"))
    }
    return {**kept, **(variables or {})}
