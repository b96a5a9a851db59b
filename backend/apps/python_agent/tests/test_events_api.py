from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rest_framework.test import APIClient

STREAM = "/api/events/stream/"


@pytest.fixture
def event_type() -> str:
    """A type no other test uses."""
    return f"test.{uuid4()}"


def publish(api: APIClient, event_type: str, data: Any) -> int:
    response = api.post("/api/events/", {"event_type": event_type, "data": data, "source": "test"}, format="json")
    assert response.status_code == 201, response.content
    sequence: int = response.json()["sequence"]
    return sequence


def read_blocks(chunks: Iterator[bytes], count: int) -> list[dict[str, str]]:
    """The next blocks of a stream that carry data, as dicts of their fields."""
    blocks: list[dict[str, str]] = []
    for chunk in chunks:
        fields = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            blocks.append(fields)
        if len(blocks) == count:
            return blocks
    raise AssertionError(f"the stream ended after {blocks}")


def test_stream_resumes_behind_the_last_event_seen_without_gap_or_repeat(api: APIClient, event_type: str) -> None:
    sequences = [publish(api, event_type, index) for index in range(5)]
    for kwargs in (
        {"data": {"event_type": event_type, "after_sequence": sequences[1]}},
        # The header of a reader that reconnects goes before the address it began with.
        {"data": {"event_type": event_type, "after_sequence": 0}, "headers": {"Last-Event-ID": str(sequences[1])}},
    ):
        response: Any = api.get(STREAM, **kwargs)
        blocks = read_blocks(iter(response), 3)
        response.close()
        assert [int(block["id"]) for block in blocks] == sequences[2:]
        assert [json.loads(block["data"])["data"] for block in blocks] == [2, 3, 4]
        assert {block["event"] for block in blocks} == {event_type}


def test_head_of_a_stream_is_the_headers_alone(api: APIClient, event_type: str) -> None:
    response: Any = api.head(STREAM, {"event_type": event_type})
    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    assert b"".join(response) == b""


def test_stream_has_the_headers_that_keep_proxies_from_holding_it_back(api: APIClient, event_type: str) -> None:
    response = api.get(STREAM, {"event_type": event_type}, headers={"Accept": "text/event-stream"})
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-cache, no-transform"
    assert response["X-Accel-Buffering"] == "no"
    response.close()


def test_event_carries_everything(api: APIClient, event_type: str) -> None:
    event = {"event_type": event_type, "data": {"n": 2**63 - 1}, "source": "shop", "metadata": {"importance": "high"}}
    sequence = api.post("/api/events/", event, format="json").json()["sequence"]
    response: Any = api.get(STREAM, {"event_type": event_type, "after_sequence": sequence - 1, "named": "false"})
    [block] = read_blocks(iter(response), 1)
    response.close()
    data = json.loads(block["data"])
    assert "event" not in block
    assert (data["type"], data["data"], data["source"]) == (event_type, {"n": 2**63 - 1}, "shop")
    assert (data["metadata"], data["sequence"]) == ({"importance": "high"}, sequence)
    assert data["event_id"]
    assert data["time"]


def test_line_ends_in_a_type_do_not_break_the_format(api: APIClient, event_type: str) -> None:
    wild = f"{event_type}\ndata: forged\r\nid: 1"
    sequence = publish(api, wild, "x")
    response: Any = api.get(STREAM, {"event_type": f"{event_type}*", "after_sequence": str(sequence - 1)})
    [block] = read_blocks(iter(response), 1)
    response.close()
    assert int(block["id"]) == sequence
    assert json.loads(block["data"])["type"] == wild


@pytest.mark.parametrize(
    "query",
    [{"after_sequence": "x"}, {"after_sequence": -1}, {"event_type": ","}, {"event_type": ",".join("abc" * 40)}],
)
def test_bad_queries_are_refused(api: APIClient, query: dict[str, Any]) -> None:
    response = api.get(STREAM, query, headers={"Accept": "text/event-stream"})
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")
    assert response.json()["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "٣", "9" * 20])
def test_bad_last_event_id_is_named(api: APIClient, value: str) -> None:
    response = api.get(STREAM, headers={"Accept": "text/event-stream", "Last-Event-ID": value})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "Last-Event-ID")


def test_last_event_id_of_zero_goes_before_the_query(api: APIClient, event_type: str) -> None:
    publish(api, event_type, "first")
    query: dict[str, Any] = {"event_type": event_type, "after_sequence": publish(api, event_type, "second")}
    response: Any = api.get(STREAM, query, headers={"Last-Event-ID": "0"})
    blocks = read_blocks(iter(response), 2)
    response.close()
    assert [json.loads(block["data"])["data"] for block in blocks] == ["first", "second"]


def test_what_cannot_take_a_stream_is_told_so(api: APIClient) -> None:
    assert api.get(STREAM, headers={"Accept": "application/json"}).status_code == 406


@pytest.mark.parametrize("event_type", ["", "x" * 201, "💙" * 51])
def test_types_that_cannot_be_published_are_refused(api: APIClient, event_type: str) -> None:
    response = api.post("/api/events/", {"event_type": event_type, "data": 1}, format="json")
    assert response.status_code in {400, 422}
    assert "type" in json.dumps(response.json()["errors"])
