"""DMARC (RFC 9989): does who signed or sent a message belong to the domain in From, and if not, what does that wish?

`from_header` finds the author's domain, `record` reads a policy record, `organisation` walks up the tree of DNS to
find the policy and which names belong together, `verify` compares and tells the result and the policy to apply.
"""
