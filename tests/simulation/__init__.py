"""A deterministic simulation of session, courier, spool and delivery loop under seeded faults.

`python -m tests.simulation --help` runs seeds and tells the story of one. Everything under test is the real code; what
is simulated is the world: time (`loop`), DNS and next hops (`hops`), the disk (`disk`), the senders (`senders`) and
what ends a process (`machine`). What must hold is in `check`.
"""
