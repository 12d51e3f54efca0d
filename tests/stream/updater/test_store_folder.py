"""Stores of partitions that moved away leave the disk in time, and so does everybody who is forgotten meanwhile."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ops.metrics import UpdaterMetrics
from state.store import Store, StoreLocked
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories
from stream.updater.config import UpdaterConfig
from stream.updater.store_folder import StoreFolder
from stream.updater.worker import Updater
from stream.wire.topics import TopicPlan
from tests.support.updating import applied, interaction, produce, running, until

NOW = 1_700_000_000_000


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_store(folder: StoreFolder, number: int) -> Path:
    path = folder.take(number)
    Store(path, {"of": "test"}).close()
    return path


def test_a_store_that_was_left_stays_for_a_return_and_then_goes(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    folder = StoreFolder(tmp_path, 600.0, clock)
    returns, moves = make_store(folder, 1), make_store(folder, 2)
    folder.leave(1)
    folder.leave(2)
    clock.now += 599
    folder.sweep()
    assert folder.take(1) == returns and moves.exists()
    clock.now += 1
    folder.sweep()
    assert returns.exists() and not moves.exists()
    clock.now += 10_000
    folder.sweep()
    assert returns.exists()  # it is owned


def test_what_an_earlier_process_left_goes_by_the_time_of_its_last_change(tmp_path: Path) -> None:
    earlier = StoreFolder(tmp_path, 600.0)
    old, recent, owned = (make_store(earlier, number) for number in (1, 2, 3))
    (tmp_path / "notes").mkdir()  # no store, and neither is this:
    (tmp_path / "4").write_text("a file")
    started = time.time()
    for path in (old, *old.iterdir()):
        os.utime(path, (started - 5000, started - 5000))
    clock = Clock(started)
    folder = StoreFolder(tmp_path, 600.0, clock)
    folder.sweep()
    assert old.exists()  # the group may still assign it
    folder.take(3)
    clock.now += 61
    folder.sweep()
    assert not old.exists() and recent.exists()
    clock.now += 600
    folder.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "notes"]
    assert owned.exists()


def test_a_worker_that_keeps_nothing_still_waits_for_its_partitions_when_it_starts(tmp_path: Path) -> None:
    path = make_store(StoreFolder(tmp_path, 0.0), 1)
    clock = Clock(time.time())
    folder = StoreFolder(tmp_path, 0.0, clock)
    clock.now += 5
    folder.sweep()
    assert folder.take(1) == path and path.exists()
    folder.leave(1)
    folder.sweep()
    assert not path.exists()


def test_a_store_that_another_process_has_open_is_not_removed(tmp_path: Path) -> None:
    folder = StoreFolder(tmp_path, 0.0)
    path = make_store(folder, 1)
    holding = "from pathlib import Path; import sys; from state.store import Store; "
    holding += "store = Store(Path(sys.argv[1]), {'of': 'test'}); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holding, str(path)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked):
            Store.destroy(path)
        folder.leave(1)
        folder.sweep()
        assert (path / "LOCK").exists()
        other.communicate()
    Store.destroy(path)
    assert not path.exists()


@pytest.mark.kafka
def test_a_forgotten_user_leaves_the_disks_of_former_owners(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    former, owner = (
        UpdaterConfig(
            tmp_path / name, worker=name, checkpoint_seconds=0.2, keep_released_seconds=1.0, session_seconds=6
        )
        for name in ("former", "owner")
    )
    with running(former, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(f"somebody{n}", f"secret{n}", NOW) for n in range(20)])
        until(lambda: applied(metrics) == 20, "taking all events in")
    assert {path.name for path in (former.state_dir / "histories").iterdir()} == {"0", "1"}
    other = Updater(owner, kafka, plan, UpdaterMetrics(CollectorRegistry()))  # the first of the group: it owns all
    stop = threading.Event()
    work = threading.Thread(target=other.run, args=(stop,))
    work.start()
    try:
        until(lambda: len(other._running) == 2, "owning all partitions")
        with running(former, kafka, plan):
            until(lambda: len(other._running) == 1, "sharing the partitions")
            produce(kafka, plan, [(b"somebody%d" % n, None) for n in range(20)])
            until(
                lambda: all(not history.items for history in changelog_histories(kafka, plan.histories).values()),
                "forgetting everybody",
            )
            until(lambda: len(list((former.state_dir / "histories").iterdir())) == 1, "removing what moved away")
            until(lambda: len(list((owner.state_dir / "histories").iterdir())) == 1, "removing what moved away")
            (moved,) = {"0", "1"} - {path.name for path in (former.state_dir / "histories").iterdir()}
            assert (owner.state_dir / "histories" / moved).exists()
    finally:
        stop.set()
        work.join()
