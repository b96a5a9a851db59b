"""The client under the name the integration guide gives it; the library has it."""

from django_agent_runtime.go_integration import GoRuntimeIntegration, get_go_runtime_integration

__all__ = ["GoRuntimeIntegration", "get_go_runtime_integration"]
