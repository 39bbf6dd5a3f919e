"""The store: one SQLite file that remembers every run, experiment and trial."""

from mcp_server.machine.store.connection import Refused
from mcp_server.machine.store.store import Store

__all__ = ["Refused", "Store"]
