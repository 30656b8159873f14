"""The requirements a run judges by: one TOML file per area, read by `pytest_mcp_conformance.catalogue`."""
