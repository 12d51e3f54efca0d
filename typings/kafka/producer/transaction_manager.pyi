from kafka.structs import OffsetAndMetadata, TopicPartition

class TransactionManager:
    _pending_txn_offset_commits: dict[TopicPartition, OffsetAndMetadata]
