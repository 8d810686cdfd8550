"""Runs the command in its arguments, quietly, and prints the most bytes of memory that it had at a time."""

import os
import sys

quiet = os.open(os.devnull, os.O_WRONLY)
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, quiet, 1)])
_, status, usage = os.wait4(child, 0)
if status != 0:
    sys.exit(os.waitstatus_to_exitcode(status))
print(usage.ru_maxrss * 1024)
