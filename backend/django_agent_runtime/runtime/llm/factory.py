"""Which client: by the arguments, then the settings, then the environment."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any
from weakref import WeakKeyDictionary

from django_agent_runtime.runtime.llm.anthropic import AnthropicClient
from django_agent_runtime.runtime.llm.client import LLMClient
from django_agent_runtime.runtime.llm.litellm import LiteLLMClient
from django_agent_runtime.runtime.llm.offline import OfflineClient
from django_agent_runtime.runtime.llm.openai import OpenAIClient
from django_agent_runtime.runtime_conf import AgentRuntimeSettings, get_agent_runtime_settings

__all__ = ["close_llm_clients", "get_llm_client"]

# For a provider that is not the settings' own, whose DEFAULT_MODEL is another's.
_DEFAULT_MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-5-5", "litellm": "gpt-4o"}
_SDKS = {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}


def get_llm_client(provider: str | None = None, model: str | None = None, **kwargs: Any) -> LLMClient:
    """A client for a model.

    Keys come from `api_key`, the settings, or the environment: OPENAI_API_KEY, ANTHROPIC_API_KEY, and for LiteLLM those
    of its providers; addresses from `base_url`, OPENAI_BASE_URL or ANTHROPIC_BASE_URL. Where there is neither, the
    client is an offline stand-in that says so in each answer.

    Args:
        provider: `openai`, `anthropic`, `litellm` or `offline`; None: MODEL_PROVIDER of the settings.
        model: None: DEFAULT_MODEL of the settings.
        **kwargs: Passed to the SDK's client, such as `timeout` (seconds) and `max_retries`; with LiteLLM, into each
            call.

    Raises:
        ValueError: No such provider.
        ImportError: The provider's SDK is not installed; the text says what to install.
    """
    settings = get_agent_runtime_settings()
    name = provider or settings.model_provider
    if name == "offline":
        return OfflineClient()
    if name not in _DEFAULT_MODELS:
        raise ValueError(f"no model provider {name!r}; there are: {', '.join([*_DEFAULT_MODELS, 'offline'])}")
    chosen = model or _default_model(name, settings)
    options = {key: value for key, value in kwargs.items() if value is not None}
    if name == "litellm":
        return _make_litellm(chosen, options, settings)
    prefix = name.upper()
    key = options.pop("api_key", None) or getattr(settings, f"{name}_api_key") or os.environ.get(f"{prefix}_API_KEY")
    base_url = options.pop("base_url", None) or os.environ.get(f"{prefix}_BASE_URL")
    if not key and not base_url and "http_client" not in options:
        return OfflineClient(f"Set {prefix}_API_KEY, or {prefix}_BASE_URL for a server of your own.")
    sdk = _import_sdk(name)
    # Servers of one's own often want no key, and the SDKs always.
    options["api_key"] = key or "none"
    if base_url:
        options["base_url"] = base_url
    kind: Callable[..., Any] = getattr(sdk, _SDKS[name])
    get_sdk = _keep_per_loop(kind, options)
    return OpenAIClient(chosen, get_sdk) if name == "openai" else AnthropicClient(chosen, get_sdk)


async def close_llm_clients() -> None:
    """Close the connections that this event loop's clients keep open; they open new ones when they are used again."""
    for client in _kept.pop(asyncio.get_running_loop(), {}).values():
        await client.close()


# The SDKs' connections belong to the event loop that opened them, and are worth keeping between runs.
_kept: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, Any]] = WeakKeyDictionary()


def _keep_per_loop(kind: Callable[..., Any], options: dict[str, Any]) -> Callable[[], Any]:
    try:
        same = (kind, frozenset(options.items()))
        hash(same)
    except TypeError:
        # Options that cannot be compared, such as a dict of headers: this client's alone.
        same = (kind, object())  # type: ignore[assignment]

    def get_sdk() -> Any:
        of_loop = _kept.setdefault(asyncio.get_running_loop(), {})
        if same not in of_loop:
            of_loop[same] = kind(**options)
        return of_loop[same]

    return get_sdk


def _default_model(provider: str, settings: AgentRuntimeSettings) -> str:
    unset = next(item.default for item in fields(settings) if item.name == "default_model")
    if provider == settings.model_provider and settings.default_model != unset:
        return settings.default_model
    return _DEFAULT_MODELS[provider]


def _make_litellm(model: str, options: dict[str, Any], settings: AgentRuntimeSettings) -> LLMClient:
    # Else its import fetches a list of prices.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    if "base_url" in options:
        options["api_base"] = options.pop("base_url")
    if "api_key" not in options:
        maker, slash, _ = model.partition("/")
        is_claude = maker == "anthropic" or model.startswith("claude")
        is_openai = maker == "openai" or not (slash or is_claude)
        key = settings.anthropic_api_key if is_claude else settings.openai_api_key if is_openai else None
        if key:
            options["api_key"] = key
    litellm = _import_sdk("litellm")
    # It would print to the terminal at each error.
    litellm.suppress_debug_info = True
    if not {"api_key", "api_base"} & set(options):
        missing = litellm.validate_environment(model)["missing_keys"]
        if missing:
            return OfflineClient(f"Set {' and '.join(missing)}.")
    return LiteLLMClient(model, litellm, options)


def _import_sdk(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name != name:
            raise
        raise ImportError(f"the model provider {name!r} needs its SDK: pip install {name}", name=name) from error
