"""The apps of the reference site."""
