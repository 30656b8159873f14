"""An unguarded app to be served."""

from mcp_guard.demo import demo_server

app = demo_server()
