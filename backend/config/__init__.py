"""The reference site: a small Django project that drives the runtime."""
