"""Coordination: one method of `Lab` per operation that a user can ask for."""
