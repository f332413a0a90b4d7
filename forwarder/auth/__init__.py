"""Who sent this message? SPF, DKIM, ARC and DMARC as the RFCs say them, without any I/O but questions to a Resolver."""
