"""A fork is a process like any other: it says what it says, ends as it ends, and ends with its supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stream.clients.connection import KafkaConnection
from stream.local.forked import Forked, ForkServer
from stream.local.pipeline import Pipeline, PipelineConfig
from stream.local.supervisor import Child, RestartPolicy, Supervisor
from stream.wire.topics import TopicPlan

ROOT = Path(__file__).parents[3]
# What a fork may not share: threads would be missing in it, connections and a GPU would be used by two.
STATE = """
import psutil, torch, stream.local.preloaded
me = psutil.Process()
print(me.num_threads(), torch.cuda.is_initialized(), len(me.net_connections()), len(me.children()))
print([file.path for file in me.open_files()])
"""


@pytest.fixture(scope="module")
def server() -> ForkServer:
    return ForkServer()


def until(condition: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def ended(process: Forked) -> tuple[int, str]:
    return process.wait(90), process.stdout.read()


# Nothing keeps its second line from being run again where Python prepares the fork.
UNGUARDED = """
from stream.local.forked import ForkServer
process = ForkServer().run("freshet-x", ["--version"], {"PATH": "/usr/bin"})
print(process.wait(60), process.stdout.read())
"""


def test_a_command_that_cannot_be_forked_ends_and_says_why(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert "1 it could not be forked: RuntimeError: An attempt has been made to start a new process" in done.stdout
    assert "0 freshet" in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_the_process_that_is_forked_only_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STATE], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["1 False 0 0", "[]"]


def test_a_command_says_and_ends_as_it_would_by_itself(server: ForkServer) -> None:
    process = server.run("freshet-x", ["--version"], environment())
    assert process.poll() is None
    assert ended(process) == (0, "freshet 0.1.0\n")
    code, said = ended(server.run("freshet-x", ["--no-such-option"], environment()))
    assert code == 2 and "--no-such-option" in said and "Traceback" not in said


def test_a_command_has_the_environment_that_it_was_given(server: ForkServer) -> None:
    code, said = ended(server.run("x", ["config"], environment(FRESHET_UPDATER_HISTORY_ITEMS="7351")))
    assert (code, "7351" in said) == (0, True)
    assert "7351" not in ended(server.run("x", ["config"], environment()))[1]


def test_one_that_is_told_to_end_before_it_began_ends(server: ForkServer) -> None:
    process = server.run("x", ["broker"], environment())
    process.terminate()
    assert process.wait(90) in (0, -signal.SIGTERM)


@pytest.mark.kafka
def test_a_killed_one_is_started_again_in_a_moment(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    """As `freshet up` starts its scorers."""
    lines: list[str] = []
    pipeline = Pipeline(
        PipelineConfig(tmp_path), kafka.bootstrap_servers, topics, lambda *line: None, usual_ports=False
    )
    scorer = pipeline.supervisor.children["scorer"]
    assert scorer.forked
    child = Child("scorer", scorer.command, scorer.environment, forked=True)
    supervisor = Supervisor([child], lambda name, line: lines.append(line), policy=RestartPolicy(0.05, 0.05))
    serving = f"scorer reads {topics.refreshes}"

    def served(times: int) -> bool:
        supervisor.watch()
        return sum(line.endswith(serving) for line in lines) == times

    supervisor.start()
    try:
        until(lambda: served(1), "a first start")
        assert child.process is not None
        first = child.process.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: served(2), "a second start")
        assert child.process is not None and child.process.pid != first
        assert psutil.Process(child.process.pid).name() == "freshet-scorer"
        assert any("SIGKILL" in line for line in lines)
    finally:
        assert supervisor.stop()
    assert child.process.returncode == 0


@pytest.fixture
def supervised(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own, and a scorer that it forked."""
    arguments = [
        *("scorer", "--prefix", topics.prefix, "--partitions", str(topics.partitions), "--metrics-port", "0"),
        *("--state-dir", str(tmp_path)),
    ]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "forking.py"), *arguments],
        env=environment(PYTHONPATH=str(ROOT), FRESHET_BOOTSTRAP_SERVERS=kafka.bootstrap_servers),
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.kafka
def test_it_ends_with_its_supervisor_however_that_ends(supervised: subprocess.Popen[str]) -> None:
    assert supervised.stdout is not None
    pid = 0
    for line in supervised.stdout:
        if line.startswith("pid "):
            pid = int(line.split()[1])
        if "scorer reads" in line:
            break
    scorer = psutil.Process(pid)
    forked = scorer.parent()
    assert forked is not None and forked.pid != supervised.pid
    supervised.kill()
    until(lambda: not scorer.is_running() and not forked.is_running(), "the end of both", 30)
