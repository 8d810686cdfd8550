"""How fast it is, against floors run in the same minutes: `python -m tests.benchmarks`."""
