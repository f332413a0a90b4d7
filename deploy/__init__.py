"""What brings the gateway up on a machine, and the small demonstration of it."""
