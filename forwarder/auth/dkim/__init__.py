"""Did the domain in d= sign this, and is it as it was signed? (RFC 6376, 8301, 8463, 8616)

`tags` and `record` read what people write, `canonical` gives the octets that are hashed, `choice` picks the
signatures worth checking, `keys` does the mathematics, `verify` puts them together. Signing uses `canonical` from the
other side.
"""
