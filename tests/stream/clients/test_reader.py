"""Topics are read without a group: from where the caller says, committed records only, to an end that is known."""

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError, OffsetOutOfRangeError

from stream.clients.admin import admin_client, offset_range
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.topics import TopicPlan

pytestmark = pytest.mark.kafka


def fill(kafka: KafkaConnection, topic: str, count: int) -> None:
    """Values 0, 1, 2, ... in turns in the topic's two partitions."""
    with KafkaProducer(**kafka.kafka_python()) as producer:
        for n in range(count):
            producer.send(topic, b"%d" % n, partition=n % 2)
        producer.flush()


def test_all_partitions_are_read_to_their_ends_each_record_once(kafka: KafkaConnection, topics: TopicPlan) -> None:
    fill(kafka, topics.refreshes, 50)
    with TopicReader(kafka, poll_records=7) as reader:
        reader.assign(reader.partitions(topics.refreshes))
        reader.to_beginning()
        assert sorted(int(record.value or b"") for record in reader.read_to_end()) == list(range(50))
        assert list(reader.read_to_end()) == []
        assert reader.partitions(topics.prefix + "none") == []


def test_what_an_aborted_transaction_wrote_is_passed_over(kafka: KafkaConnection, topics: TopicPlan) -> None:
    tp = TopicPartition(topics.histories, 0)
    with KafkaProducer(**kafka.kafka_python(), transactional_id=topics.prefix + "t") as producer:
        producer.init_transactions()
        for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
            producer.begin_transaction()
            producer.send(topics.histories, value, key=b"u", partition=0).get(timeout=10)
            end()
    with TopicReader(kafka) as reader, admin_client(kafka) as admin:
        reader.assign([tp])
        reader.to_beginning()
        assert [record.value for record in reader.read_to_end()] == [b"committed"]
        assert reader.position(tp) == offset_range(admin, tp)[1] == 4  # both records, both markers


def test_from_the_end_only_what_comes_later_is_read(kafka: KafkaConnection, topics: TopicPlan) -> None:
    fill(kafka, topics.refreshes, 10)
    with TopicReader(kafka) as reader:
        reader.assign(reader.partitions(topics.refreshes))
        reader.to_end()
        fill(kafka, topics.refreshes, 2)
        assert sorted(record.value or b"" for record in reader.read_to_end()) == [b"0", b"1"]


@pytest.mark.parametrize(("when_lost", "expected"), [("earliest", [b"4", b"6", b"8"]), ("none", OffsetOutOfRangeError)])
def test_a_beginning_that_moved_is_an_error_to_whoever_asked_for_one(
    when_lost: str, expected: object, kafka: KafkaConnection, topics: TopicPlan
) -> None:
    fill(kafka, topics.refreshes, 10)
    tp = TopicPartition(topics.refreshes, 0)
    with admin_client(kafka) as admin, TopicReader(kafka, when_lost=when_lost) as reader:  # type: ignore[arg-type]
        admin.delete_records({tp: 2})
        reader.assign([tp])
        reader.seek(tp, 0)
        if expected is OffsetOutOfRangeError:
            with pytest.raises(OffsetOutOfRangeError):
                list(reader.read_to_end())
        else:
            assert [record.value for record in reader.read_to_end()] == expected


def test_brokers_that_fall_silent_are_named_with_the_place(kafka: KafkaConnection, topics: TopicPlan) -> None:
    fill(kafka, topics.refreshes, 4)
    with TopicReader(kafka) as reader:
        reader.assign([TopicPartition(topics.refreshes, 0)])
        reader.to_beginning()
        reader.poll = lambda *_: {}  # type: ignore[method-assign]
        with pytest.raises(KafkaTimeoutError, match=f"{topics.refreshes}/0 at 0 of 2"):
            list(reader.read_to_end(patience_seconds=0.0))


def test_ends_are_told_of_topics_that_the_reader_did_not_know(kafka: KafkaConnection, topics: TopicPlan) -> None:
    """kafka-python leaves them out of its answer while it looks for their leaders."""
    fill(kafka, topics.refreshes, 6)
    with TopicReader(kafka) as reader:
        known = [TopicPartition(topics.refreshes, 0), TopicPartition(topics.refreshes, 1)]
        reader.assign(known)
        reader.to_beginning()
        assert len(list(reader.read_to_end())) == 6
        asked = [*known, TopicPartition(topics.histories, 0)]
        assert dict(reader.ends(asked)) == dict(zip(asked, (3, 3, 0), strict=True))
        assert set(reader.beginnings([*asked, TopicPartition(topics.models, 0)]).values()) == {0}
        with pytest.raises(KafkaTimeoutError, match="no leader is known"):
            reader.ends([known[0], TopicPartition(topics.refreshes, 99)], patience_seconds=0.5)
