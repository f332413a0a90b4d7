"""DNS and outgoing sockets."""
