from __future__ import annotations

import sys

import pytest

from django_agent_runtime import adapters


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("LangGraphRuntime", "langgraph", "langgraph"),
        ("OpenAIAgentsRuntime", "openai_agents", "openai-agents"),
        ("PydanticAIRuntime", "pydantic_ai", "pydantic-ai-slim"),
    ],
)
def test_missing_framework_is_named(name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    framework = {"openai_agents": "agents"}.get(module, module)
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == framework]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"django_agent_runtime.adapters.{module}", raising=False)
    with pytest.raises(ImportError, match=f"pip install {package} "):
        getattr(adapters, name)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = adapters.Nothing
