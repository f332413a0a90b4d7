"""Durable custody of letters on one machine: message files that never change, and one SQLite database (layer 3).

Read `store.py` first; the table of states, and what a crash leaves of each, stands in `forwarder/README.md`.
"""
