from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DrawingFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRAWING_FORMAT_UNSPECIFIED: _ClassVar[DrawingFormat]
    DRAWING_FORMAT_MERMAID: _ClassVar[DrawingFormat]
    DRAWING_FORMAT_SVG: _ClassVar[DrawingFormat]
DRAWING_FORMAT_UNSPECIFIED: DrawingFormat
DRAWING_FORMAT_MERMAID: DrawingFormat
DRAWING_FORMAT_SVG: DrawingFormat

class Definition(_message.Message):
    __slots__ = ("name", "version", "number", "current", "description", "create_time", "built_in", "document")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    BUILT_IN_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    number: int
    current: bool
    description: str
    create_time: _timestamp_pb2.Timestamp
    built_in: bool
    document: bytes
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., number: _Optional[int] = ..., current: bool = ..., description: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., built_in: bool = ..., document: _Optional[bytes] = ...) -> None: ...

class DocumentProblem(_message.Message):
    __slots__ = ("place", "description")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    place: str
    description: str
    def __init__(self, place: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class RegisterGraphRequest(_message.Message):
    __slots__ = ("document", "request_id")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    request_id: str
    def __init__(self, document: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class RegisterGraphResponse(_message.Message):
    __slots__ = ("graph", "created", "warnings")
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    graph: Definition
    created: bool
    warnings: _containers.RepeatedCompositeFieldContainer[DocumentProblem]
    def __init__(self, graph: _Optional[_Union[Definition, _Mapping]] = ..., created: bool = ..., warnings: _Optional[_Iterable[_Union[DocumentProblem, _Mapping]]] = ...) -> None: ...

class ValidateGraphRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class ValidateGraphResponse(_message.Message):
    __slots__ = ("problems", "name", "warnings")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[DocumentProblem]
    name: str
    warnings: _containers.RepeatedCompositeFieldContainer[DocumentProblem]
    def __init__(self, problems: _Optional[_Iterable[_Union[DocumentProblem, _Mapping]]] = ..., name: _Optional[str] = ..., warnings: _Optional[_Iterable[_Union[DocumentProblem, _Mapping]]] = ...) -> None: ...

class GetGraphRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetGraphResponse(_message.Message):
    __slots__ = ("graph",)
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    graph: Definition
    def __init__(self, graph: _Optional[_Union[Definition, _Mapping]] = ...) -> None: ...

class ListGraphsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGraphsResponse(_message.Message):
    __slots__ = ("graphs", "next_page_token")
    GRAPHS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    graphs: _containers.RepeatedCompositeFieldContainer[Definition]
    next_page_token: str
    def __init__(self, graphs: _Optional[_Iterable[_Union[Definition, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListGraphVersionsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListGraphVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Definition]
    def __init__(self, versions: _Optional[_Iterable[_Union[Definition, _Mapping]]] = ...) -> None: ...

class DeleteGraphRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteGraphResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrawGraphRequest(_message.Message):
    __slots__ = ("name", "document", "run_id", "version", "format")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    name: str
    document: bytes
    run_id: str
    version: str
    format: DrawingFormat
    def __init__(self, name: _Optional[str] = ..., document: _Optional[bytes] = ..., run_id: _Optional[str] = ..., version: _Optional[str] = ..., format: _Optional[_Union[DrawingFormat, str]] = ...) -> None: ...

class DrawGraphResponse(_message.Message):
    __slots__ = ("drawing",)
    DRAWING_FIELD_NUMBER: _ClassVar[int]
    drawing: str
    def __init__(self, drawing: _Optional[str] = ...) -> None: ...

class RegisterAgentRequest(_message.Message):
    __slots__ = ("document", "request_id")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    request_id: str
    def __init__(self, document: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class RegisterAgentResponse(_message.Message):
    __slots__ = ("agent", "created", "warnings")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    agent: Definition
    created: bool
    warnings: _containers.RepeatedCompositeFieldContainer[DocumentProblem]
    def __init__(self, agent: _Optional[_Union[Definition, _Mapping]] = ..., created: bool = ..., warnings: _Optional[_Iterable[_Union[DocumentProblem, _Mapping]]] = ...) -> None: ...

class ValidateAgentRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    def __init__(self, document: _Optional[bytes] = ...) -> None: ...

class ValidateAgentResponse(_message.Message):
    __slots__ = ("problems", "name", "warnings")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedCompositeFieldContainer[DocumentProblem]
    name: str
    warnings: _containers.RepeatedCompositeFieldContainer[DocumentProblem]
    def __init__(self, problems: _Optional[_Iterable[_Union[DocumentProblem, _Mapping]]] = ..., name: _Optional[str] = ..., warnings: _Optional[_Iterable[_Union[DocumentProblem, _Mapping]]] = ...) -> None: ...

class GetAgentDefinitionRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class GetAgentDefinitionResponse(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: Definition
    def __init__(self, agent: _Optional[_Union[Definition, _Mapping]] = ...) -> None: ...

class ListAgentVersionsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListAgentVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Definition]
    def __init__(self, versions: _Optional[_Iterable[_Union[Definition, _Mapping]]] = ...) -> None: ...

class DeleteAgentRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteAgentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
