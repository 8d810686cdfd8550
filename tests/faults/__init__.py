"""A fault harness: kills processes, cuts connections and crashes servers while migrations run, and checks what is promised.

`python -m tests.faults --help` runs it.
"""
