"""What agents written in Python are made of: see `runtime.interfaces`."""
