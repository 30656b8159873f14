"""Input spaces: what Hypothesis draws from, and the classic vectors that are tried first."""
