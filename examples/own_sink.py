"""Carry everybody's newest list to a place of your own, here SQLite: `python examples/own_sink.py lists.db`.

Needs kafka-python and FRESHET_BOOTSTRAP_SERVERS. Lists and the position that they reach are written in one transaction.
So a crash loses nothing and needs no cleaning up: the next run goes on behind the last transaction that was completed.
Any store with transactions will do; with one that has none, write the lists first and the position after them.
"""

import argparse
import contextlib
import json
import os
import sqlite3
import time

from kafka import KafkaConsumer, TopicPartition

TABLES = """
create table if not exists lists (user text primary key, items text not null, as_of integer not null);
create table if not exists positions (partition integer primary key, next_offset integer not null);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database")
    parser.add_argument("--topic", default="recommendations")
    parser.add_argument("--until-idle", type=float, default=0.0, help="stop when nothing came for so many seconds")
    given = parser.parse_args()
    consumer = KafkaConsumer(
        bootstrap_servers=os.environ["FRESHET_BOOTSTRAP_SERVERS"].split(","),
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    partitions = [TopicPartition(given.topic, number) for number in consumer.partitions_for_topic(given.topic)]
    consumer.assign(partitions)
    with contextlib.closing(sqlite3.connect(given.database)) as database:
        database.executescript(TABLES)
        positions = dict(database.execute("select partition, next_offset from positions"))
        for tp in partitions:
            if tp.partition in positions:
                consumer.seek(tp, positions[tp.partition])
            else:
                consumer.seek_to_beginning(tp)
        heard = time.monotonic()
        while not given.until_idle or time.monotonic() < heard + given.until_idle:
            for tp, records in consumer.poll(timeout_ms=200).items():
                heard = time.monotonic()
                with database:  # one transaction: it is completed at the end of the block, or not at all
                    for record in records:
                        take(database, record)
                    database.execute(
                        "insert or replace into positions values (?, ?)", (tp.partition, records[-1].offset + 1)
                    )
    consumer.close()


def take(database: sqlite3.Connection, record) -> None:
    """What is newer stays: a user who moved, or was forgotten, has records in several partitions, read in any order."""
    user, headers = record.key.decode(), dict(record.headers)
    if record.value is None:
        if "moved" not in headers:  # else nobody was forgotten: the list lies in another partition now
            forgotten = int(headers["history"].split()[0]) if "history" in headers else 2**63 - 1
            database.execute("delete from lists where user = ? and as_of <= ?", (user, forgotten))
        return
    found = json.loads(record.value)
    items = json.dumps([scored["item"] for scored in found["items"]])
    database.execute(
        "insert into lists values (?, ?, ?) on conflict do update set items = excluded.items, as_of = excluded.as_of "
        "where excluded.as_of >= lists.as_of",
        (user, items, found["as_of"]),
    )


if __name__ == "__main__":
    main()
