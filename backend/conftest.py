"""Fixtures of every test in this folder: the fake runtime and the real one, as users get them."""

pytest_plugins = ["django_agent_runtime.testing.fixtures"]
