"""SPF (RFC 7208): may this IP address send mail for this domain? The domain's owner says so in a TXT record.

`record` reads such a record, `macros` fills in its placeholders, `lookups` asks DNS within the limits that the RFC
sets for everybody's protection, and `verify` evaluates the record for a client and tells what decided.
"""
