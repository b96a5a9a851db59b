"""Requests to the API of the measured site."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus
from typing import Any

from bench.child import ChildFailed

_SECONDS = 60.0


class Api:
    """One connection that is kept, with a user's token on each request. For one thread."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        self._headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: object) -> Any:
        """Post JSON and take the answer apart.

        Raises:
            ChildFailed: The answer is not 201.
        """
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != HTTPStatus.CREATED:
            raise ChildFailed(f"POST {path} was answered with {answer.status}:\n{text[:2000].decode()}")
        return json.loads(text)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def post_json(port: int, path: str, token: str, body: object) -> Any:
    """Post JSON on a connection of its own, and take the answer apart."""
    api = Api(port, token)
    try:
        return api.post(path, body)
    finally:
        api.close()
