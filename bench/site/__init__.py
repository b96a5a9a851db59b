"""The Django project whose agents, requests and streams are measured: the reference site with agents of its own."""
