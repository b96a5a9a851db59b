"""Durable agent tasks, shared state and events for Django, served by one Go process.

The client is `django_agent_runtime.go_integration.get_go_runtime_integration()`. Importing
this package opens no connection and starts no thread.
"""
