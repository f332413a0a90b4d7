"""Values that every layer speaks of. No behaviour beyond their own shape, no I/O (layer 0)."""
