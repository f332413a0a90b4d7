"""Odd messages, each with what must become of it: the same octets on the other side, or a documented refusal.

`collection.ODD` has them all. `bodies`, `headers`, `mime`, `sizes` and `hostile` make them; `signed` makes messages
with a DKIM signature and checks it. Nothing here depends on anything but the standard library and, in `signed`, dkimpy.
"""
