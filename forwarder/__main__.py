"""`python -m forwarder` is the same as the `forwarder` command."""

from forwarder.cli import main

main()
