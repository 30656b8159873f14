"""Guard layers for MCP servers."""
