# /// script
# requires-python = ">=3.11"
# dependencies = ["genai-prices==0.2.3"]
# ///
"""Write what models cost to go-runtime/internal/model/price, from the list of genai-prices.

    uv run scripts/export_prices.py

A newer list is a newer version above, with the day of its release in RELEASED. What is written depends on
these alone. Prices are in billionths of a dollar for a million tokens. A model whose price depends on more than
a date and its tokens is kept without one, so that its name is not taken for another's. Beside the prices go
costs that genai-prices computes, for the tests.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import genai_prices
from genai_prices import types
from genai_prices.data import providers

RELEASED = "2026-11-10"
PACKAGE = Path(__file__).resolve().parent.parent / "go-runtime" / "internal" / "model" / "price"

# The prices that the runtime's tokens have, by what they are called there.
KEYS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached",
    "output_reasoning_mtok": "reasoning",
}
# Prices of what the runtime does not ask for.
UNUSED = r"audio_hours|cache_write|web_searches|storage_searches|(input|output|cache)_(audio|image|video)"
WITHOUT_WORD = "^(?!.*"


def _write_clause(clause: Any) -> dict[str, Any]:
    """How a model's name is recognised, in what Go's regular expressions can say too."""
    written: dict[str, Any]
    match clause:
        case types.ClauseEquals():
            written = {"equals": clause.equals.lower()}
        case types.ClauseStartsWith():
            written = {"starts": clause.starts_with.lower()}
        case types.ClauseEndsWith():
            written = {"ends": clause.ends_with.lower()}
        case types.ClauseContains():
            written = {"contains": clause.contains.lower()}
        case types.ClauseRegex() if clause.regex.startswith(WITHOUT_WORD) and clause.regex.endswith(")"):
            written = {"lacks": clause.regex.removeprefix(WITHOUT_WORD).removesuffix(")")}
        case types.ClauseRegex() if "(?" not in clause.regex.replace("(?:", ""):
            written = {"matches": clause.regex}
        case types.ClauseOr():
            written = {"any": [_write_clause(part) for part in clause.or_]}
        case types.ClauseAnd():
            written = {"all": [_write_clause(part) for part in clause.and_]}
        case _:
            raise ValueError(f"no way to write {clause}")
    return written


def _write_amount(price: Decimal) -> int:
    amount = round(price * 10**9)
    if abs(price * 10**9 - amount) > Decimal("0.001"):
        raise ValueError(f"{price} is finer than a billionth of a dollar")
    return int(amount)


def _write_price(price: Decimal | types.TieredPrices) -> Any:
    if isinstance(price, Decimal):
        return _write_amount(price)
    tiers = [{"above": tier.start, "price": _write_amount(tier.price)} for tier in price.tiers]
    return {"base": _write_amount(price.base), "tiers": tiers}


def _write_prices(model: types.ModelInfo) -> list[dict[str, Any]]:
    """The prices of a model, the last that has begun being the one that holds, or none."""
    conditional = model.prices
    if isinstance(conditional, types.ModelPrice):
        conditional = [types.ConditionalPrice(prices=conditional)]
    written = []
    for condition in conditional:
        prices = {key: price for key, price in vars(condition.prices).items() if price is not None}
        used = {key: price for key, price in prices.items() if not re.match(UNUSED, key)}
        if not {"input_mtok", "output_mtok"} <= set(used) <= set(KEYS):
            return []
        row = {KEYS[key]: _write_price(price) for key, price in sorted(used.items())}
        match condition.constraint:
            case None:
                pass
            case types.StartDateConstraint():
                row["from"] = condition.constraint.start_date.isoformat()
            case _:
                return []
        written.append(row)
    return written


def _write_provider(provider: types.Provider) -> dict[str, Any]:
    models = [
        {
            "match": _write_clause(model.match),
            **({"prices": prices} if (prices := _write_prices(model)) else {}),
        }
        for model in provider.models
    ]
    written: dict[str, Any] = {
        "id": provider.id,
        "api": provider.api_pattern,
        "models": models,
    }
    if provider.fallback_model_providers:
        written["fallback"] = list(provider.fallback_model_providers)
    return written


# Provider, model, and what must be found: each kind of match, tier, date and gap.
CASES = (
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-5-mini-2025-08-07"),
    ("openai", "gpt-5-mini-20250807"),
    ("openai", "gpt-5.4-mini-20260317"),
    ("openai", "gpt-4o"),
    ("openai", "GPT-4o-2024-08-06"),
    ("openai", "gpt-4.1-nano"),
    ("openai", "o3"),
    ("openai", "o4-mini"),
    ("openai", "gpt-5.5"),
    ("openai", "text-embedding-3-small"),
    ("openai", "no-such-model"),
    ("anthropic", "claude-opus-5"),
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-3-5-haiku-latest"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-pro-preview-tts"),
    ("google", "gemini-2.5-flash-lite"),
    ("google", "gemini-3.8-flash"),
    ("google", "gemma-3-27b-it"),
    ("azure", "gpt-4o"),
    ("azure", "claude-opus-5"),
    ("deepseek", "deepseek-chat"),
    ("groq", "llama-3.3-70b-versatile"),
    ("mistral", "mistral-large-latest"),
    ("openrouter", "openai/gpt-5-mini"),
    ("openrouter", "perplexity/sonar-deep-research"),
    ("perplexity", "sonar"),
    ("x-ai", "grok-4-0709"),
    ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ("no-such-provider", "gpt-4o"),
)
# Tokens: input, of it cached, output, of it reasoning.
TOKENS = (
    (1234, 0, 567, 0),
    (150_000, 100_001, 8_000, 3_000),
    (300_007, 12_345, 9_999, 0),
)
TIMES = (
    "2025-06-15T12:00:00+00:00",
    "2026-10-26T00:00:00+00:00",
    "2027-02-01T23:59:59+00:00",
)


def _compute_cost(case: tuple[str, str], tokens: tuple[int, int, int, int], at: str, *, priced: bool) -> int | None:
    used = genai_prices.Usage(
        input_tokens=tokens[0],
        cache_read_tokens=tokens[1],
        output_tokens=tokens[2],
        output_reasoning_tokens=tokens[3],
    )
    if not priced:
        return None
    cost = genai_prices.calc_price(
        used,
        case[1],
        provider_id=case[0],
        genai_request_timestamp=datetime.fromisoformat(at),
    )
    return int((cost.total_price * 10**9).to_integral_value(rounding="ROUND_HALF_UP"))


def _is_priced(provider_id: str, name: str) -> bool:
    provider = next((provider for provider in providers if provider.id == provider_id), None)
    model = provider and provider.find_model(name, all_providers=providers)
    return bool(model and _write_prices(model))


def main() -> None:
    """Write both files."""
    name = f"genai-prices {version('genai-prices')} of {RELEASED}"
    prices = {
        "version": name,
        "providers": [_write_provider(provider) for provider in providers],
    }
    (PACKAGE / "prices.json").write_text(json.dumps(prices, separators=(",", ":"), ensure_ascii=False) + "\n")
    expected = [
        {
            "provider": case[0],
            "model": case[1],
            "at": at,
            "tokens": {
                "input": tokens[0],
                "cached": tokens[1],
                "output": tokens[2],
                "reasoning": tokens[3],
            },
            "nano_usd": _compute_cost(case, tokens, at, priced=_is_priced(*case)),
        }
        for case in CASES
        for at in TIMES
        for tokens in TOKENS
    ]
    lines = ",\n".join(json.dumps(row) for row in expected)
    (PACKAGE / "testdata").mkdir(exist_ok=True)
    (PACKAGE / "testdata" / "expected.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
