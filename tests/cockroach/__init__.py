"""What can be tested of CockroachDB without one, and what can be tested with one.

- `simulator.py`: a proxy in front of a real PostgreSQL that behaves as CockroachDB is documented to; `test_simulator.py`.
- `protocol.py`: a model of lease, fence and journal; `test_model.py` plays it against crashes and late schema changes.
- tests marked `cockroach`: against the server at COCKROACH_URL.
"""
