"""The bundled checks, one file an area. A run with `--mcp-target` and no other arguments collects exactly these."""
