from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import DeleteOperation, OperationResult, SetOperation, StateChange, StateChangeKind

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess


@pytest.mark.parametrize(
    "value",
    [
        {"theme": "dark", "language": "en"},
        None,
        2**63 - 1,
        10**30,
        -0.0,
        1e308,
        "😀 \ud800",
        [[[[]]], {"": {}}],
    ],
    ids=repr,
)
def test_a_value_comes_back_as_written(client: GoRuntimeIntegration, value: Any) -> None:
    assert client.set_state("user_preferences", value) is True
    assert repr(client.get_state("user_preferences")) == repr(value)


def test_a_missing_key_can_be_told_from_null(client: GoRuntimeIntegration) -> None:
    assert client.get_state("missing") is None
    assert client.get_state("missing", default=7) == 7
    assert client.get_state_entry("missing") is None
    client.set_state("null", None)
    assert client.get_state("null", default=7) is None
    entry = client.get_state_entry("null")
    assert entry is not None
    assert entry.value is None
    assert entry.update_time is not None
    assert entry.expire_time is None


def test_delete_says_whether_there_was_a_key(client: GoRuntimeIntegration) -> None:
    client.set_state("temporary_data", 1)
    assert client.delete_state("temporary_data") is True
    assert client.delete_state("temporary_data") is False


def test_compare_and_set(client: GoRuntimeIntegration) -> None:
    client.set_state("k", 1, create_only=True)
    with pytest.raises(exceptions.KeyExists):
        client.set_state("k", 2, create_only=True)
    entry = client.get_state_entry("k")
    assert entry is not None
    client.set_state("k", 2, expected_revision=entry.revision)
    with pytest.raises(exceptions.RevisionMismatch) as caught:
        client.set_state("k", 3, expected_revision=entry.revision)
    assert int(caught.value.metadata["revision"]) > entry.revision
    with pytest.raises(exceptions.RevisionMismatch):
        client.delete_state("k", expected_revision=entry.revision)
    with pytest.raises(ValueError, match="contradict"):
        client.set_state("k", 4, create_only=True, expected_revision=entry.revision)
    assert client.get_state("k") == 2


def test_a_ttl_sets_the_time_of_expiry(client: GoRuntimeIntegration) -> None:
    client.set_state("k", 1, ttl=3600)
    entry = client.get_state_entry("k")
    assert entry is not None
    assert entry.expire_time is not None
    assert entry.update_time is not None
    assert (entry.expire_time - entry.update_time).total_seconds() == pytest.approx(3600, abs=2)


@pytest.mark.parametrize("method", ["get_state", "delete_state", "get_state_entry", "watch_state"])
def test_an_empty_key_is_refused(client: GoRuntimeIntegration, method: str) -> None:
    with pytest.raises(ValueError, match="key must not be empty"):
        getattr(client, method)("")


def test_a_value_above_the_limit_is_refused(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.TooLarge) as caught:
        client.set_state("k", "x" * (1 << 20))
    assert int(caught.value.metadata["limit"]) == 1 << 20
    client.set_state("k", "x" * ((1 << 20) - 2))


def test_list_goes_through_pages_in_byte_order(client: GoRuntimeIntegration) -> None:
    keys = sorted([f"order.{number}" for number in range(25)], key=str.encode)
    for key in keys:
        client.set_state(key, key)
    client.set_state("other", 1)
    assert [entry.key for entry in client.list_state("order.", page_size=4)] == keys
    assert [entry.value for entry in client.list_state("order.*")] == keys
    assert [entry.value for entry in client.list_state("order.1", keys_only=True)] == [None] * 11
    assert len(list(client.list_state())) == 26
    assert list(client.list_state("nothing")) == []


def test_a_prefix_that_is_not_unicode_is_refused(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.InvalidValue, match=r"prefix .* is not valid Unicode"):
        list(client.list_state("\ud800*"))
    for pattern, name in (("\ud800*", "pattern"), ("\ud800", "key")):
        with pytest.raises(exceptions.InvalidValue, match=f"{name} .* is not valid Unicode"):
            client.watch_state(pattern)


def test_a_transaction_is_all_or_nothing(client: GoRuntimeIntegration) -> None:
    client.set_state("b", 1)
    results = client.transact_state([SetOperation("a", {"x": 1}, ttl=60), DeleteOperation("b"), DeleteOperation("c")])
    assert [result.existed for result in results] == [False, True, False]
    assert results[1:] == [OperationResult(0, existed=True), OperationResult(0, existed=False)]
    assert client.get_state("a") == {"x": 1}
    with pytest.raises(exceptions.RevisionMismatch) as caught:
        client.transact_state([SetOperation("a", 2), SetOperation("d", 1, expected_revision=12345)])
    assert caught.value.metadata["key"] == "d"
    assert client.get_state("a") == {"x": 1}


def test_namespaces_are_apart(go_runtime_process: GoRuntimeProcess) -> None:
    with (
        GoRuntimeIntegration(**go_runtime_process.settings, namespace="one") as one,
        GoRuntimeIntegration(**go_runtime_process.settings, namespace="two") as two,
    ):
        one.set_state("apart", 1)
        assert two.get_state("apart") is None


def summarise(change: StateChange) -> tuple[str, str, Any]:
    return str(change.kind), change.key, change.value


def test_a_watch_sees_what_follows(client: GoRuntimeIntegration) -> None:
    client.set_state("w/before", 0)
    with client.watch_state("w/*") as changes:
        client.set_state("w/a", 1)
        client.set_state("other", 1)
        client.delete_state("w/a")
        client.set_state("w/b", [2])
        seen = [next(changes) for _ in range(3)]
    assert list(map(summarise, seen)) == [("set", "w/a", 1), ("deleted", "w/a", None), ("set", "w/b", [2])]
    assert seen[0].revision < seen[1].revision < seen[2].revision
    assert list(changes) == [], "a closed watch ends"
    with client.watch_state("w/*", after_revision=seen[0].revision) as changes:
        assert summarise(next(changes)) == ("deleted", "w/a", None)


def test_a_watch_can_begin_with_what_is_there(client: GoRuntimeIntegration) -> None:
    client.set_state("k", 1)
    with client.watch_state("k", include_current=True) as changes:
        assert summarise(next(changes)) == ("set", "k", 1)
        client.set_state("k", 2, ttl=1)
        assert summarise(next(changes)) == ("set", "k", 2)
        assert next(changes).kind is StateChangeKind.EXPIRED


async def test_a_watch_for_asyncio(client: GoRuntimeIntegration) -> None:
    async with client.awatch_state("k") as changes:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(changes), 0.05)
        await client.aset_state("k", 1)
        assert summarise(await anext(changes)) == ("set", "k", 1)
    assert [change async for change in changes] == []


def test_disconnecting_ends_a_watch_with_an_error(client: GoRuntimeIntegration) -> None:
    changes = client.watch_state("*")
    threading.Timer(0.05, client.disconnect).start()
    with pytest.raises(exceptions.ClientClosed):
        next(changes)


def test_a_watch_that_nobody_reads_is_held_back_and_loses_nothing(client: GoRuntimeIntegration) -> None:
    with client.watch_state("*") as changes:
        value = "x" * 500_000
        for number in range(40):
            client.set_state(f"k{number:02}", value)
        assert [next(changes).key for _ in range(40)] == [f"k{number:02}" for number in range(40)]


def test_200_threads_share_a_client(client: GoRuntimeIntegration) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                client.set_state(f"t{number}", turn)
                assert client.get_state(f"t{number}") == turn
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
