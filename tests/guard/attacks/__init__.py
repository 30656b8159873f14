"""The attack corpus against a live guarded server, each attack judged by the seven points of `oracle`."""
