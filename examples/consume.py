"""Follow everybody's newest list: `python examples/consume.py`. A service keeps the last one of each user.

Needs kafka-python and FRESHET_BOOTSTRAP_SERVERS. The topic is compacted, so reading it from the beginning gives every
user's newest list; a null value means that the user was forgotten, or moved to another partition.
"""

import argparse
import json
import os

from kafka import KafkaConsumer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topic", default="recommendations")
    parser.add_argument("--lists", type=int, default=0, help="stop after this many; 0 goes on")
    given = parser.parse_args()
    consumer = KafkaConsumer(
        given.topic,
        bootstrap_servers=os.environ["FRESHET_BOOTSTRAP_SERVERS"].split(","),
        group_id=None,
        auto_offset_reset="earliest",
    )
    for number, record in enumerate(consumer, 1):
        user = record.key.decode()
        if record.value is None:
            print(f"{user}: {'moved' if 'moved' in dict(record.headers) else 'forgotten'}", flush=True)
        else:
            found = json.loads(record.value)
            items = ", ".join(scored["item"] for scored in found["items"])
            print(f"{user}: {items} (by {found['model'] or 'popularity'})", flush=True)
        if number == given.lists:
            break
    consumer.close()


if __name__ == "__main__":
    main()
