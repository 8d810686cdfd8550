"""The program's entry. `--version` is answered here, before anything is imported that takes time."""

from __future__ import annotations

import sys

from reconciler import __version__


def main() -> None:
    """Run the command line of this process and exit."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"reconciler {__version__}")
        return
    from reconciler.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
