"""What a run says: in the terminal and as JSON."""
