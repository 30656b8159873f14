"""Artefacts a decent library refuses to write: JWS of every kind, right and wrong, and what goes into them."""
