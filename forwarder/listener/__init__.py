"""Port 25: sockets, TLS, limits of connections; the only place that imports aiosmtpd."""
