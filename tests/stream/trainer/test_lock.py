"""Only one trainer works on the topics of one prefix."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.registry.slots import SlotWriter, read_slots
from stream.trainer.lock import SecondTrainer, TrainerLock
from stream.wire.topics import TRAINER_GROUP, TopicPlan
from tests.support.lifecycle_worker import announcement

pytestmark = pytest.mark.kafka


Open = Callable[[str], TrainerLock]


@pytest.fixture
def lock(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Open]:
    """Takes the lock for the trainer of a folder, with its own admin client."""
    admins: list[KafkaAdminClient] = []

    def take(folder: str) -> TrainerLock:
        admins.append(admin_client(kafka))
        return TrainerLock(kafka, admins[-1], topics.prefix + TRAINER_GROUP, topics.models, Path(folder))

    yield take
    for admin in admins:
        admin.close()


@contextmanager
def working(held: TrainerLock, kafka: KafkaConnection, topics: TopicPlan) -> Iterator[None]:
    """Checks it now and then, as a trainer does; fails when it is lost."""
    slots = SlotWriter(kafka, topics.models, "trainer")
    done, lost = threading.Event(), []

    def work() -> None:
        try:
            while not done.wait(0.2):
                held.check(slots)
        except SecondTrainer as error:
            lost.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        held.close()
        slots.close()
    assert not lost


def test_a_second_trainer_is_refused_by_name_and_the_first_goes_on(
    kafka: KafkaConnection, topics: TopicPlan, lock: Open
) -> None:
    with working(lock("/srv/first"), kafka, topics):
        for _ in range(2):
            with pytest.raises(SecondTrainer, match=r"another trainer works .*:/srv/first at 127\.0\.0\.1\. Stop it"):
                lock("/srv/second")
    began = time.monotonic()
    lock("/srv/second").close()  # who left in peace is not waited for
    assert time.monotonic() - began < 8


HOLD = """
import sys, time
from pathlib import Path
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.registry.slots import SlotWriter
from stream.trainer.lock import TrainerLock
kafka = KafkaConnection(sys.argv[1])
lock = TrainerLock(kafka, admin_client(kafka), sys.argv[2], sys.argv[3], Path("/srv/child"))
slots = SlotWriter(kafka, sys.argv[3], "trainer")
print("held", flush=True)
while True:
    lock.check(slots)
    time.sleep(0.1)
"""


@pytest.fixture
def holder(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    arguments = (kafka.bootstrap_servers, topics.prefix + TRAINER_GROUP, topics.models)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_killed_trainer_is_followed_after_its_session(
    kafka: KafkaConnection, topics: TopicPlan, lock: Open, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    lock("/srv/next").close()


def test_a_trainer_that_was_paused_gives_up_once_another_took_over(
    kafka: KafkaConnection, topics: TopicPlan, lock: Open, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGSTOP)
    with working(lock("/srv/next"), kafka, topics):
        os.kill(holder.pid, signal.SIGCONT)
        _, errors = holder.communicate(timeout=60)
    assert holder.returncode != 0 and "SecondTrainer: another trainer has taken over" in errors


def test_a_writer_that_was_followed_by_another_of_its_name_moves_nothing(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    old = SlotWriter(kafka, topics.models, "trainer")
    old.put("live", announcement("v1"))
    new = SlotWriter(kafka, topics.models, "trainer")
    with pytest.raises(KafkaError):
        old.put("live", announcement("zombie"))
    new.put("live", announcement("v2"))
    assert read_slots(kafka, topics.models)["live"].version == "v2"
    old.close()
    new.close()
