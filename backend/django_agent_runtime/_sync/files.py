"""Generated from `_async/files.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from django_agent_runtime import _archive, _channel, _messages
from django_agent_runtime._ahead import PendingCall
from django_agent_runtime._arguments import check_seconds
from django_agent_runtime._channel import CallMetadata, Q, R, Rpc, new_request_id
from django_agent_runtime._codec import check_text
from django_agent_runtime._errors import CallFailure
from django_agent_runtime.grpc_client.agentruntime.v1 import workspace_service_pb2 as workspace_pb
from django_agent_runtime.types import RunFile

from .calls import SyncCalls

__all__ = ["SyncFiles"]


class SyncFiles(SyncCalls):
    """The files of runs, as the runtime saved them last; it keeps them for a time after the run's end."""

    def list_run_files(self, run_id: str) -> list[RunFile]:
        """What files a run has, by path; none if it has left none yet.

        Raises:
            RunNotFound: There is no such run.
        """
        request = workspace_pb.ListFilesRequest(run_id=check_text("run_id", run_id))
        response = self._call(_channel.LIST_FILES, request)
        return [_messages.to_run_file(file) for file in response.files]

    def get_run_file(self, run_id: str, path: str, *, timeout: float | None = None) -> bytes:
        """The content of one file of a run.

        Args:
            path: As `list_run_files` has it.
            timeout: Seconds it may take; None: the `timeout` setting.

        Raises:
            RunFileNotFound: The run has no such file.
            RunNotFound: There is no such run.
        """
        request = workspace_pb.GetFileRequest(run_id=check_text("run_id", run_id), path=check_text("path", path))
        content = bytearray()

        def receive(message: workspace_pb.GetFileResponse) -> None:
            if message.HasField("file"):
                # It begins, perhaps once more.
                content.clear()
            content.extend(message.data)

        self._read(_channel.GET_FILE, request, receive, timeout)
        return bytes(content)

    def get_run_archive(self, run_id: str, file: BinaryIO, *, timeout: float | None = None) -> None:
        """Write all files of a run to `file` as a zip, and go back to its beginning.

        Args:
            file: Empty, open for writing, and can be sought in.
            timeout: Seconds it may take; None: the `timeout` setting.

        Raises:
            RunNotFound: There is no such run.
        """
        request = workspace_pb.GetArchiveRequest(run_id=check_text("run_id", run_id))

        def receive(message: workspace_pb.GetArchiveResponse) -> None:
            if message.offset == 0:
                # It begins, perhaps once more.
                file.seek(0)
                file.truncate()
            file.write(message.data)

        self._read(_channel.GET_ARCHIVE, request, receive, timeout)
        file.seek(0)

    def download_run_files(self, run_id: str, destination: str | Path, *, timeout: float | None = None) -> list[Path]:
        """Put all files of a run into a folder, which is made if it is not there.

        Files that are there already under the same paths are replaced; what is a link is not followed.

        Args:
            timeout: Seconds it may take; None: the `timeout` setting.

        Returns:
            Where each of them is.

        Raises:
            RunNotFound: There is no such run.
            ValueError: A path leads out of the folder.
        """
        with TemporaryFile() as archive:
            self.get_run_archive(run_id, archive, timeout=timeout)
            # In a thread of its own: it writes to a disk.
            return PendingCall(partial(_archive.unpack, archive, Path(destination))).result()

    def _read(self, rpc: Rpc[Q, R], request: Q, receive: Any, timeout: float | None) -> None:
        """Hand each message of an answer to `receive`, from the first one on with each attempt."""
        given = check_seconds("timeout", timeout)
        deadline = time.monotonic() + (self.settings.timeout if given is None else given)

        def attempt(metadata: CallMetadata) -> CallFailure | None:
            return self._transport.attempt_stream(rpc, request, deadline, metadata, receive)

        self._persist(attempt, new_request_id(), deadline)
