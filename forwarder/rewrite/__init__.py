"""What we change on the way: the envelope sender (SRS) and the header lines that we put in front."""
