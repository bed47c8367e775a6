"""What other projects keep for the life of a process."""
