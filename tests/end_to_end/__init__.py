"""Real clients against the real demo, each in a process of its own."""
