"""The program's entry. `--version` is answered here, before anything is imported that takes time."""

from __future__ import annotations

import gc
import os
import sys

from reconciler import __version__


def main() -> None:
    """Run the command line of this process and exit."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        try:
            print(f"reconciler {__version__}", flush=True)
            return
        except OSError:
            # told below, as for every other command
            pass
    # Collecting garbage while modules are loaded, and taking them all apart again at the end, was a third of a short command's
    # time (measured). The daemon collects as usual.
    gc.disable()
    from reconciler.cli import run

    code = run(sys.argv[1:])
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        # told already; the interpreter would only tell it again
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
