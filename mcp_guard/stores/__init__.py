"""Where state lives: the contract in `base`, one module for each implementation."""
