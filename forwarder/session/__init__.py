"""One SMTP client's session: read `transaction.py` first."""
