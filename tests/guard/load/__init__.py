"""Many streams, slow clients, and a server that is told to stop; the large numbers are run by `make load`."""
