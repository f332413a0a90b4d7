"""The demonstration: a tiny name server, a tiny inbox, and one message through the gateway between them."""
