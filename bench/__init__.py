"""Measures the runtime against the floor and against its peers, side by side in one run: `python -m bench`."""
