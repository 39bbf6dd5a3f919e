"""Trainings on the machines of a Ray cluster. Only `ray_cluster` imports ray, in a process of its own: see `driver`."""
