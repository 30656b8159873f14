"""Fixed sequences of requests and what is seen of the answers. A fault must change at least one observation."""
