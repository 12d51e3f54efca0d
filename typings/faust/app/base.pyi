from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from faust.auth import Credentials
from faust.sensors.monitor import Monitor
from faust.topics import Topic
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import Producer

class _Signal:
    def connect(self, fun: Callable[..., Awaitable[None]]) -> Any: ...

class App:
    consumer: Consumer
    monitor: Monitor
    on_partitions_assigned: _Signal

    def __init__(
        self,
        id: str,
        *,
        broker: list[str] = ...,
        broker_credentials: Credentials = ...,
        datadir: Path = ...,
        Topic: type[Topic] = ...,
        topic_partitions: int = ...,
        topic_allow_declare: bool = ...,
        topic_disable_leader: bool = ...,
        table_standby_replicas: int = ...,
        stream_wait_empty: bool = ...,
        stream_buffer_maxsize: int = ...,
        processing_guarantee: Literal["at_least_once", "exactly_once"] = ...,
        consumer_auto_offset_reset: Literal["earliest", "latest"] = ...,
        consumer_group_instance_id: str | None = ...,
        broker_max_poll_records: int = ...,
        broker_commit_interval: float = ...,
        broker_session_timeout: float = ...,
        broker_heartbeat_interval: float = ...,
        broker_request_timeout: float = ...,
        broker_max_poll_interval: float = ...,
        producer_acks: int = ...,
        producer_linger: float = ...,
        producer_max_batch_size: int = ...,
        producer_max_request_size: int = ...,
        producer_request_timeout: float = ...,
        worker_redirect_stdouts: bool = ...,
        web_enabled: bool = ...,
    ) -> None: ...
    @property
    def should_stop(self) -> bool: ...
    def agent(self, channel: Topic, *, name: str, concurrency: int) -> Callable[[Callable[..., Any]], Any]: ...
    def topic(self, *topics: str) -> Topic: ...
    def finalize(self) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def maybe_start_producer(self) -> Producer: ...
