"""What sees to the end of a hook when this process cannot: one that is killed by SIGKILL has no last word."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

SHELL = "/bin/sh"
"""What runs it."""
# Reads until we say that all is over, or until nobody is left who could. `kill -s`, for dash knows no other way to name both a
# signal and a group.
_WATCH = """
group=
while read -r word; do
    case $word in
        over) exit 0 ;;
        *) group=$word ;;
    esac
done
if test -n "$group" && kill -s TERM -- "-$group"; then
    for second in 1 2 3 4 5; do
        sleep 1
        kill -s 0 -- "-$group" || break
    done
    kill -s KILL -- "-$group"
fi
rm -rf -- "$1"
"""


class Lifeline:
    """A process that holds one end of a pipe whose other end only we hold. When that closes without a word, we are gone: it
    ends the process group it was told of, as we would have, and removes the folder.

    Args:
        folder: what to remove.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = -1
        self._process: Process | None = None

    async def begin(self) -> None:
        """Start it.

        Raises:
            OSError: it cannot be started.
        """
        reading, self._writing = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                SHELL,
                "-c",
                _WATCH,
                "reconciler-lifeline",
                str(self._folder),
                stdin=reading,
                stdout=DEVNULL,
                stderr=DEVNULL,
                cwd="/",
                env={"PATH": os.defpath},
                # what is sent to our group, by Ctrl-C say, is not meant for it
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    async def end(self) -> None:
        """All is over: it has nothing to see to any more."""
        self._say("over")
        os.close(self._writing)
        assert self._process is not None
        await asyncio.shield(asyncio.ensure_future(self._process.wait()))

    def hold(self, group: int) -> None:
        """This process group ends with us."""
        self._say(str(group))

    def _say(self, word: str) -> None:
        # somebody may have killed it
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writing, f"{word}\n".encode())
