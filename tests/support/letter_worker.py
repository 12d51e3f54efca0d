"""Sends dead letters again and kills itself before it commits.

python letter_worker.py BOOTSTRAP_SERVERS PREFIX PARTITIONS
"""

import os
import signal
import sys
import time

from stream.clients.connection import KafkaConnection
from stream.letters.mending import Changes, Judge
from stream.letters.reading import Wanted, letters
from stream.letters.resending import Resender, resend
from stream.wire.records import Limits
from stream.wire.topics import TopicPlan


def main() -> None:
    connection, plan = KafkaConnection(sys.argv[1]), TopicPlan(sys.argv[2], int(sys.argv[3]))
    found, changes = letters(connection, plan.dead_letters, Wanted()), Changes(time_unit="s")
    with Resender(connection, plan) as resender:
        resend(
            found,
            plan,
            changes,
            {},
            Judge(Limits(), int(time.time() * 1000)),
            resender.resent,
            lambda batch: resender.send(batch, crash=lambda: os.kill(os.getpid(), signal.SIGKILL)),
        )


if __name__ == "__main__":
    main()
