"""The receiving side of the wire: sockets, TLS, limits and the reading of commands and content (layer 3).

`server.Listener` makes a `protocol.SmtpConnection` per client; that reads through an `inbox.Inbox` and asks a
`conversation.Conversation` (the session) for every reply.
"""
