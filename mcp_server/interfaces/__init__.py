"""Thin doors made from the operations table: MCP tools, REST routes and command-line verbs."""
