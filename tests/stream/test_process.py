"""What a process asks of its threads and of the garbage collector."""

import os
import subprocess
import sys
import threading

import pytest

from stream.process import run_at_idle_priority


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux has this policy")
def test_a_thread_that_gives_way_takes_along_those_it_starts_and_no_other() -> None:
    found: list[int] = []

    def child() -> None:
        found.append(os.sched_getscheduler(0))

    def work() -> None:
        run_at_idle_priority()
        found.append(os.sched_getscheduler(0))
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [os.SCHED_IDLE, os.SCHED_IDLE]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_lives_is_not_collected_again_but_what_comes_later_is() -> None:
    program = """
import gc, weakref
from stream.process import tune_gc

class Node:
    pass

tune_gc()
assert gc.get_freeze_count() > 1000
later = Node()
later.itself, gone = later, weakref.ref(later)
del later
gc.collect()
assert gone() is None
"""
    subprocess.run([sys.executable, "-c", program], check=True)
