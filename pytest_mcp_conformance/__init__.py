"""A pytest plugin that certifies the security of any MCP server, by URL."""
