"""Write what users do to Freshet, as any service would: `python examples/produce.py ann tea view`.

Needs kafka-python and FRESHET_BOOTSTRAP_SERVERS. Its default partitioner is murmur2, like that of Java's clients.
"""

import argparse
import json
import os
import time

from kafka import KafkaProducer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("user")
    parser.add_argument("item")
    parser.add_argument("kind", nargs="?", default="", help="what happened: view, buy, ... as your settings name it")
    parser.add_argument("--forget", action="store_true", help="erase the user instead")
    parser.add_argument("--topic", default="interactions")
    given = parser.parse_args()
    producer = KafkaProducer(bootstrap_servers=os.environ["FRESHET_BOOTSTRAP_SERVERS"].split(","), acks="all")
    event = {"user": given.user, "item": given.item, "event": given.kind, "timestamp": int(time.time() * 1000)}
    value = None if given.forget else json.dumps(event).encode()
    stored = producer.send(given.topic, value, key=given.user.encode()).get(timeout=30)
    print(f"{stored.topic}/{stored.partition} at offset {stored.offset}")
    producer.close()


if __name__ == "__main__":
    main()
