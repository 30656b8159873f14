"""The base classes of layers, and the only ASGI plumbing: one scope copy, one send wrapper, refusals, store batches."""
