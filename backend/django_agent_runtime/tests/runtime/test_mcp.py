"""The official Python MCP client with the real runtime, whose tools are its agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mcp import Client, MCPError
from mcp.types import TextContent, TextResourceContents

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess

MODES: tuple[Any, ...] = ("auto", "legacy", "2026-07-28")


@pytest.fixture
def url(go_runtime_process: GoRuntimeProcess) -> str:
    return f"http://{go_runtime_process.host}:{go_runtime_process.http_port}/mcp"


@pytest.mark.parametrize("mode", MODES)
async def test_agents_are_tools(url: str, mode: Any) -> None:
    messages: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        messages.append(message)

    async with Client(url, mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["codegen_agent__explain_code"].input_schema["required"] == ["code"]

        result = await client.call_tool("codegen_agent__explain_code", {"code": "a = 1"}, progress_callback=note)
        assert not result.is_error
        assert result.structured_content is not None
        assert result.structured_content["agent_id"] == "codegen_agent"
        assert "run.succeeded" in messages

        assert result.meta is not None
        [run] = (await client.read_resource(f"run://{result.meta['agentruntime/run_id']}")).contents
        assert isinstance(run, TextResourceContents)
        assert '"state":"succeeded"' in run.text


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_wrong_is_told(url: str, mode: Any) -> None:
    async with Client(url, mode=mode) as client:
        result = await client.call_tool("codegen_agent__explain_code", {"code": 1})
        assert result.is_error
        [told] = result.content
        assert isinstance(told, TextContent)
        assert told.text == "input.code: must be a string, is a number"
        for ask in (client.call_tool("nobody", {}), client.read_resource("run://none")):
            with pytest.raises(MCPError):
                await ask
