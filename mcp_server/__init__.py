"""autoresearch-mcp: an MCP server that lets an AI agent do machine learning research through the night."""

__version__ = "0.1.0"
