"""Everything that touches the outside: the store, git, devices and training processes."""
