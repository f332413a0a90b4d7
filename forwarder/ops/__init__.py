"""Running it: logs, systemd, control socket, reload."""
