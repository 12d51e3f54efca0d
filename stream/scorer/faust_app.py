"""The Faust app of a scorer, and why each of its settings is what it is."""

from __future__ import annotations

import faust

from stream.clients.connection import KafkaConnection
from stream.clients.faust_records import RawTopic
from stream.scorer.config import ScorerConfig
from stream.wire.topics import TopicPlan

__all__ = ["scoring_app"]


def scoring_app(config: ScorerConfig, connection: KafkaConnection, plan: TopicPlan) -> faust.App:
    return faust.App(
        plan.prefix + config.group,
        **connection.faust(),
        datadir=config.state_dir / "faust",
        Topic=RawTopic,  # nothing is decoded by Faust, which would ack a record that it cannot decode
        topic_partitions=plan.partitions,
        topic_allow_declare=False,  # topics are made in one place
        topic_disable_leader=True,
        table_standby_replicas=0,  # without tables and their assignor plain round robin remains
        stream_wait_empty=False,  # a rebalance need not wait: a repeated list is the same list
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=2000,
        broker_commit_interval=1.0,  # seconds of work that a rebalance or a crash repeats
        broker_session_timeout=config.session_seconds,
        consumer_group_instance_id=config.worker or None,
        broker_heartbeat_interval=max(config.session_seconds / 10, 0.3),
        broker_request_timeout=max(90.0, config.session_seconds),
        broker_max_poll_interval=300.0,
        producer_acks=-1,
        producer_linger=0,  # a batch of lists is a batch already
        producer_max_batch_size=512 * 1024,
        producer_max_request_size=8 * 1024 * 1024,
        producer_request_timeout=config.stall_seconds,  # the default keeps a failed list for 20 minutes
        stream_buffer_maxsize=4096,
        worker_redirect_stdouts=False,
        web_enabled=False,
    )
