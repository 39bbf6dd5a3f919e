"""The demo: the real server, real trainings, and a scripted agent in place of a language model."""
