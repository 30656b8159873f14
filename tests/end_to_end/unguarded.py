"""An unguarded app to be served."""

from mcp_guard.demo_server import demo_server

app = demo_server()
