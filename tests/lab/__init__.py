"""A small internet for end-to-end tests: hosts with addresses of their own, a DNS server, mail servers and clients.

`world` makes the network, `dns` its names; `hop` and `client` are scripted peers that see and send exact octets;
`postfix`, `chasquid` and `swaks` run the real programs; `gateway` runs ours. Everything is a context manager that
stops what it started. Nothing leaves 127.0.0.0/8 or a network namespace made for the test.
"""
