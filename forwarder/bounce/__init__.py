"""What we write ourselves: delivery status notifications to senders, notices to the postmaster; and when not to."""
