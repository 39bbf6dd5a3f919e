"""`python -m mcp_server` is the console script `autoresearch`."""

from mcp_server.interfaces.cli import main

if __name__ == "__main__":
    main()
