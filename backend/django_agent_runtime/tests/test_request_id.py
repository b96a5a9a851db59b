from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory

from django_agent_runtime.api.request_id import HEADER, RequestIdFilter, RequestIdMiddleware, current_request_id

if TYPE_CHECKING:
    from django.http import HttpRequest


def answer_with_id(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(current_request_id())


async def aanswer_with_id(_request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(current_request_id())


def serve(given: str | None, *, is_async: bool) -> HttpResponse:
    headers = {} if given is None else {HEADER: given}
    request = RequestFactory().get("/", headers=headers)
    response = RequestIdMiddleware(aanswer_with_id if is_async else answer_with_id)(request)
    if is_async:
        return asyncio.run(response)  # type: ignore[arg-type]
    assert isinstance(response, HttpResponse)
    return response


@pytest.mark.parametrize("is_async", [False, True])
def test_a_given_id_is_kept(*, is_async: bool) -> None:
    response = serve("order-7.a_B", is_async=is_async)
    assert response[HEADER] == response.content.decode() == "order-7.a_B"
    assert current_request_id() == ""


@pytest.mark.parametrize("given", [None, "", "x" * 65, "two words", "a;b"])
def test_a_missing_or_harmful_id_is_replaced(given: str | None) -> None:
    response = serve(given, is_async=False)
    assert response[HEADER] == response.content.decode() != given
    assert len(response[HEADER]) == 32


def test_log_records_carry_the_id() -> None:
    record = logging.makeLogRecord({"msg": "run accepted"})
    assert RequestIdFilter().filter(record)
    assert record.request_id == ""  # type: ignore[attr-defined]


class KeptRecords(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.addFilter(RequestIdFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_line_of_a_refused_request_carries_its_id(*, is_async: bool) -> None:
    handler = KeptRecords()
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    try:
        if is_async:
            asyncio.run(AsyncClient().get("/nowhere/", headers={HEADER: "order-7"}))
        else:
            Client().get("/nowhere/", headers={HEADER: "order-7"})
    finally:
        logger.removeHandler(handler)
    assert {record.request_id for record in handler.records} == {"order-7"}  # type: ignore[attr-defined]
