"""The guide's example app: Django views over the Go runtime."""
