from typing import Any, ClassVar

from aiokafka.protocol.types import Schema

class HeartbeatResponse_v1:
    API_VERSION: ClassVar[int]
    error_code: int

class HeartbeatRequest_v1:
    API_VERSION: ClassVar[int]
    RESPONSE_TYPE: ClassVar[type[HeartbeatResponse_v1]]
    SCHEMA: ClassVar[Schema]

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
