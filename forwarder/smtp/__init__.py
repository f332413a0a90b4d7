"""SMTP as octets and values: commands, paths, replies, end of data, the client's side as a state machine.

Layer 1: no sockets, no clock.
"""
