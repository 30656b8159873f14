"""The bundled conformance suites: plain synchronous pytest files, one per area."""
