"""Agents of other frameworks, served as they are.

    from django_agent_runtime.adapters import LangGraphRuntime

    register_runtime(LangGraphRuntime("researcher", graph))

Each needs its framework: `langgraph`, `openai-agents` or `pydantic-ai-slim`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_agent_runtime.adapters.langgraph import LangGraphRuntime
    from django_agent_runtime.adapters.openai_agents import OpenAIAgentsRuntime
    from django_agent_runtime.adapters.pydantic_ai import PydanticAIRuntime

__all__ = ["LangGraphRuntime", "OpenAIAgentsRuntime", "PydanticAIRuntime"]

# By adapter: its module, and what its framework is installed as.
_FRAMEWORKS = {
    "LangGraphRuntime": ("langgraph", "langgraph"),
    "OpenAIAgentsRuntime": ("openai_agents", "openai-agents"),
    "PydanticAIRuntime": ("pydantic_ai", "pydantic-ai-slim"),
}


def __getattr__(name: str) -> Any:
    """Import an adapter when it is asked for: nobody has all three frameworks."""
    import importlib  # noqa: PLC0415

    if name not in _FRAMEWORKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, package = _FRAMEWORKS[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} needs its framework: pip install {package} (no module {error.name!r})",
            name=error.name,
        ) from error
