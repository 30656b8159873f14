"""The fault table: each fault is injected into real servers under load, and what comes of it is measured.

`make faults` runs all of it and prints the table; the quick ones belong to `make test` too.
"""
