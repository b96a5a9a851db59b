from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from rest_framework.test import APIClient


@pytest.fixture
def path() -> str:
    """The address of a key no other test uses."""
    return f"/api/state/{uuid4()}"


def write(api: APIClient, path: str, value: Any, **headers: str) -> Any:
    return api.put(path, {"value": value}, format="json", headers=headers)


def test_key_is_written_read_and_deleted(api: APIClient, path: str) -> None:
    assert api.get(path).status_code == 404
    created = write(api, path, {"theme": "dark"})
    assert created.status_code == 201
    read = api.get(path)
    assert read.json()["value"] == {"theme": "dark"}
    assert read["ETag"] == created["ETag"] == f'"{read.json()["revision"]}"'
    assert write(api, path, None).status_code == 200
    assert api.get(path).json()["value"] is None
    assert api.delete(path).status_code == 204
    assert api.delete(path).status_code == 404


@pytest.mark.parametrize(
    "value", [2**63 - 1, -(2**70), 1e308, "💙", "\ud83d", {"a": [None, True, {"": 0}]}, [], "", 0.1 + 0.2]
)
def test_json_comes_back_as_it_was_written(api: APIClient, path: str, value: Any) -> None:
    assert write(api, path, value).status_code == 201
    assert api.get(path).json()["value"] == value


def test_sign_of_zero_is_kept(api: APIClient, path: str) -> None:
    api.put(path, '{"value": -0.0}', content_type="application/json")
    assert b'"value":-0.0' in api.get(path).content


@pytest.mark.parametrize("key", ["a/b//c", "ключ", "a b?c#d%", "line\nend", "..", "💙"])
def test_any_key_has_an_address(api: APIClient, key: str) -> None:
    path = f"/api/state/{quote(key + str(uuid4()), safe='')}"
    assert write(api, path, 1).status_code == 201
    assert api.get(path).json()["key"].startswith(key)


def test_write_at_the_read_revision_succeeds_once(api: APIClient, path: str) -> None:
    etag = write(api, path, 1)["ETag"]
    assert write(api, path, 2, **{"If-Match": etag}).status_code == 200
    late = write(api, path, 3, **{"If-Match": etag})
    assert (late.status_code, late.json()["code"]) == (412, "REVISION_MISMATCH")
    assert api.delete(path, headers={"If-Match": etag}).status_code == 412
    assert api.get(path).json()["value"] == 2


def test_create_only_is_refused_when_the_key_exists(api: APIClient, path: str) -> None:
    assert write(api, path, 1, **{"If-None-Match": "*"}).status_code == 201
    again = write(api, path, 2, **{"If-None-Match": "*"})
    assert (again.status_code, again.json()["code"]) == (412, "KEY_EXISTS")


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": "*"},
        {"If-Match": '"zero"'},
        {"If-Match": '"0"'},
        {"If-Match": f'"{2**70}"'},
        {"If-None-Match": '"1"'},
    ],
)
def test_conditions_that_mean_nothing_are_refused(api: APIClient, path: str, headers: dict[str, str]) -> None:
    response = write(api, path, 1, **headers)
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] in headers


def test_time_to_live_is_kept_with_the_key(api: APIClient, path: str) -> None:
    api.put(path, {"value": 1, "ttl_seconds": 3600}, format="json")
    assert api.get(path).json()["expire_time"]


def test_keys_are_listed_by_prefix_with_a_limit(api: APIClient) -> None:
    prefix = f"list/{uuid4()}/"
    for name in "cab":
        write(api, f"/api/state/{prefix}{name}", name)
    listed = api.get("/api/state/", {"prefix": prefix}).json()
    assert [entry["key"] for entry in listed["entries"]] == [f"{prefix}{name}" for name in "abc"]
    assert listed["more"] is False
    assert "value" not in listed["entries"][0]
    first = api.get("/api/state/", {"prefix": prefix, "limit": "2"}).json()
    assert (len(first["entries"]), first["more"]) == (2, True)


def test_value_above_the_limit_of_the_runtime_is_413(api: APIClient, path: str) -> None:
    response = write(api, path, "x" * (1024 * 1024))
    assert (response.status_code, response.json()["code"]) == (413, "TOO_LARGE")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{}", 400),
        ('{"value": 1, "ttl_seconds": 0}', 400),
        ('{"value": 1, "ttl_seconds": 1e400}', 400),
        (f'{{"value": 1, "ttl_seconds": {2**70}}}', 400),
        ('{"value": NaN}', 400),
        (json.dumps({"value": "x" * 3_000_000}), 413),
        ('{"value": ' + "[" * 201 + "]" * 201 + "}", 422),
        ('{"value": ' + "[" * 100_000 + "]" * 100_000 + "}", 400),
    ],
)
def test_bodies_that_cannot_be_kept_are_the_callers_fault(api: APIClient, path: str, body: str, status: int) -> None:
    response = api.put(path, body, content_type="application/json")
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")


def test_key_above_512_bytes_is_refused(api: APIClient) -> None:
    assert write(api, f"/api/state/{'k' * 512}", 1).status_code in {200, 201}
    response = write(api, f"/api/state/{'k' * 513}", 1)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "key")


@pytest.mark.parametrize("raw", ["%ff", "%fe", "%c3", "k%ed%a0%80"])
@pytest.mark.parametrize("variable", ["RAW_URI", "REQUEST_URI"])
def test_key_that_is_no_text_is_refused(api: APIClient, variable: str, raw: str) -> None:
    path = f"/api/state/{raw}"
    # What gunicorn and uWSGI add; the test client does not.
    came: dict[str, Any] = {variable: f"{path}?a=%ff"}
    response = api.put(path, {"value": 1}, format="json", **came)
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")
    assert response.json()["code"] == "INVALID_ARGUMENT"


def test_slash_at_the_end_is_part_of_the_key(api: APIClient, path: str) -> None:
    assert write(api, f"{path}/", 1).json()["key"].endswith("/")
    assert api.get(path).status_code == 404
