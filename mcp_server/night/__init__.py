"""The night: an agent that is kept at work, whatever becomes of it, until a limit is reached."""
