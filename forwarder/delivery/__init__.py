"""Handing messages on: routes, attempts, the pool of connections, the courier that cuts through."""
