"""The fake's files of runs: what a test has given to each."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import workspace_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import workspace_service_pb2_grpc
from django_agent_runtime.testing._wire import read_namespace, refuse, refuse_field

CHUNK_BYTES = 256 * 1024


@dataclass
class FakeWorkspaceService(workspace_service_pb2_grpc.WorkspaceServiceServicer):
    """Hands out files of runs."""

    check_run: Callable[[str, grpc.ServicerContext], None]
    """Refuses a run that does not exist."""
    _files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)

    def set_files(self, namespace: str, run_id: str, files: Mapping[str, bytes]) -> None:
        """What a run has, instead of what it had."""
        self._files[namespace, run_id] = dict(sorted(files.items()))

    def ListFiles(self, request: pb.ListFilesRequest, context: grpc.ServicerContext) -> pb.ListFilesResponse:  # noqa: N802
        """See the service definition."""
        files = self._find(request.run_id, context)
        return pb.ListFilesResponse(files=[_describe(path, content) for path, content in files.items()])

    def GetFile(self, request: pb.GetFileRequest, context: grpc.ServicerContext) -> Iterator[pb.GetFileResponse]:  # noqa: N802
        """See the service definition; of the rules about paths it knows those that keep them inside."""
        files = self._find(request.run_id, context)
        if not all(part not in {"", ".", ".."} for part in request.path.split("/")):
            refuse_field(context, "path", f"{request.path!r} has an empty part, a dot or two dots as a part")
        content = files.get(request.path)
        if content is None:
            refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                "FILE_NOT_FOUND",
                f"run {request.run_id} has no file {request.path!r}",
                metadata={"run_id": request.run_id, "path": request.path},
            )
        yield pb.GetFileResponse(file=_describe(request.path, content))
        for start in range(0, len(content), CHUNK_BYTES):
            yield pb.GetFileResponse(data=content[start : start + CHUNK_BYTES])

    def GetArchive(  # noqa: N802
        self, request: pb.GetArchiveRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GetArchiveResponse]:
        """See the service definition."""
        files = self._find(request.run_id, context)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        text = packed.getvalue()
        for start in range(0, len(text), CHUNK_BYTES):
            yield pb.GetArchiveResponse(data=text[start : start + CHUNK_BYTES], offset=start)

    def _find(self, run_id: str, context: grpc.ServicerContext) -> dict[str, bytes]:
        self.check_run(run_id, context)
        return self._files.get((read_namespace(context), run_id), {})


def _describe(path: str, content: bytes) -> pb.RunFile:
    return pb.RunFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
