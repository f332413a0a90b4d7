"""What did those see who handled this message before us, and can it be believed? (RFC 8617)

Every forwarder that takes part adds a set of three fields: what it found out about the sender
(ARC-Authentication-Results), a signature of the message as it left (ARC-Message-Signature), and a seal over all sets so
far (ARC-Seal). `record` reads the fields and puts them together, `seal` gives what a seal is over, for verifying and
for sealing alike, `verify` says whether the chain holds. A chain that holds says who spoke, never that it is true.
"""
