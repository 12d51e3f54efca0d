"""The command line as people use it: what it refuses, in one line with exit code 2, and what it shows."""

import fcntl
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import click
import pytest

from stream.cli import starting
from stream.cli.main import app
from stream.cli.options import SettingsCommand
from stream.cli.settings import Settings
from stream.clients.connection import KafkaConnection
from tests.support.commands import freshet

ROOT = Path(__file__).parents[3]
NOBODY = "127.0.0.1:1"  # nothing listens there
WRONG = ("", " ", "x", "-1", "0", "nan", "inf", "1e999", "9" * 25, "[", "\0", "/proc/nothing/x", "127.0.0.1:abc")


def commands(group: click.Group = app, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def context(command: click.Command) -> click.Context:
    return click.Context(command, obj=Settings(None, {}))


def test_every_command_takes_its_options_from_settings() -> None:
    assert all(isinstance(command, SettingsCommand) for command in COMMANDS.values())
    assert {("updater",), ("scorer",), ("trainer",), ("up",), ("demo",), ("model", "list")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_explains_every_option(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    silent = [
        param.opts[0]
        for param in command.get_params(context(command))
        if isinstance(param, click.Option) and not re.sub(r" \[[^]]*]$", "", param.help or "").endswith(".")
    ]
    assert silent == []
    done = freshet(*path, "--help")
    assert done.exit_code == 0 and len(command.help or "") > 20 and done.errors == ""


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_value_of_any_option_is_more_than_refused(path: tuple[str, ...], tmp_path: Path) -> None:
    command = COMMANDS[path]
    params = command.get_params(context(command))
    file = tmp_path / "file.csv"
    file.write_text("user,item,timestamp\n")
    arguments = [str(file) for param in params if isinstance(param, click.Argument) and param.required]
    for param in params:
        if not isinstance(param, click.Option) or param.is_flag:
            continue
        for value in WRONG:
            done = freshet("--check", *path, *arguments, param.opts[0], value)
            assert done.exit_code == 0 or done.refusal, (param.opts, value)
            is_number = param.type.name in ("INTEGER", "NUMBER", "float", "integer", "float range", "integer range")
            if is_number and value in ("x", "nan", "1e999", "["):
                assert param.opts[0] in done.refusal


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "--speed", "0", "FILE"), "--speed"),
        (("replay", "--time-unit", "sec", "FILE"), "--time-unit"),
        (("updater", "--bootstrap-servers", "127.0.0.1:abc"), "127.0.0.1:abc"),
        (("updater", "--bootstrap-servers", NOBODY, "--state-dir", "/proc/x"), "/proc/x"),
        (("updater", "--bootstrap-servers", NOBODY, "--checkpoint-seconds", "0"), "--checkpoint-seconds"),
        (("trainer", "--bootstrap-servers", NOBODY, "--preset", "x"), "no preset 'x'; there are"),
        (("trainer",), "FRESHET_BOOTSTRAP_SERVERS"),
        (("updater", "--partitons", "3"), "--partitions"),
        (("updatr",), "updatr"),
        ((), "freshet --help"),
        (("updater", "--config", "x"), "--config stands before the command"),
        (("--config", "/nothing.toml", "updater"), "/nothing.toml"),
        (("--set", "topics.partitons=3", "updater"), "did you mean topics.partitions?"),
        (("--log-level", "loud", "updater"), "loud"),
        (("evaluate", "/nothing.csv"), "/nothing.csv: no such file"),
        (("broker", "--port", "99999"), "--port"),
    ],
)
def test_what_a_person_can_put_right_is_one_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user,item,timestamp\na,b,1700000000\n")
    done = freshet(*(str(file) if argument == "FILE" else argument for argument in arguments))
    if arguments:
        assert said in done.refusal
    else:
        assert done.exit_code == 0 and "Usage: freshet" in done.output


@pytest.mark.parametrize("name", ["demo", "replay", "evaluate", "backtest"])
def test_a_log_is_described_by_the_same_options_wherever_it_is_read(name: str) -> None:
    columns = "user item timestamp time-of-day rating weight event member"
    words = "min-rating kinds time-unit time-format time-zone time-origin delimiter header quote encoding"
    command = COMMANDS[name,]
    options = {name for param in command.get_params(context(command)) for name in param.opts}
    assert {f"--{word}" for word in f"{columns} {words}".split()} <= options


def test_a_file_without_a_usable_event_ends_with_the_first_bad_value(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user,item,timestamp\nann,tea,soon\nbob,cups,later\n")
    done = freshet("replay", str(file), "--dry-run", "--bootstrap-servers", NOBODY)
    assert done.exit_code == 2 and "'soon'" in done.errors.splitlines()[-1]


def test_the_port_of_the_api_that_is_taken_is_one_line(tmp_path: Path, kafka: KafkaConnection, prefix: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ("--bootstrap-servers", kafka.bootstrap_servers, "--prefix", prefix, "--state-dir", str(tmp_path))
        done = freshet("api", *options, "--port", port)
    assert done.exit_code == 2 and f"cannot listen on 127.0.0.1:{port}" in done.errors.splitlines()[-1]
    assert "Try another --port" in done.errors


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ["--bootstrap-servers", NOBODY, "--state-dir", str(tmp_path), "--metrics-port", port]
        command = [sys.executable, "-m", "stream.cli", "updater", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert port in done.stderr and "--metrics-port" in done.stderr


@pytest.mark.parametrize("name", ["updater", "scorer", "trainer", "api"])
def test_a_folder_that_another_process_works_in_is_one_line(name: str, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held, patch.object(starting, "_LET_GO_SECONDS", 0.1):
        fcntl.flock(held, fcntl.LOCK_EX)
        done = freshet(name, "--bootstrap-servers", NOBODY, "--state-dir", str(tmp_path))
        assert f"{tmp_path}: another process works in this folder" in done.refusal
        assert "--state-dir" in done.refusal


def test_a_folder_is_free_again_as_soon_as_its_process_is_gone(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(0.3, held.close).start()  # as when a process that was told to end does
        started = time.monotonic()
        setting = Settings(None, {}, ()).with_options({("updater", "state_dir"): (str(tmp_path), "--state-dir")})
        assert starting.own_folder(setting["updater.state_dir"]) == tmp_path
        assert time.monotonic() - started < 5


def test_a_kafka_that_does_not_answer_is_one_line_and_may_be_tried_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stream.cli", "model", "list", "--bootstrap-servers", NOBODY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "Is Kafka up" in done.stderr


def test_the_effective_settings_show_their_origin_and_no_secret(tmp_path: Path) -> None:
    file, properties, password = tmp_path / "freshet.toml", tmp_path / "client.properties", tmp_path / "password"
    file.write_text("[topics]\npartitions = 12\n[updater]\nhistory_items = 50\n")
    properties.write_text("bootstrap.servers=kafka:9092\nsasl.username=ann\nsasl.mechanism=PLAIN\n")
    password.write_text("hush-hush\n")
    environment = {
        "FRESHET_KAFKA_CONFIG": str(properties),
        "FRESHET_SASL_PASSWORD_FILE": str(password),
        "FRESHET_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "FRESHET_UPDATER_POLL_SECONDS": "0.5",
    }
    arguments = ("--config", str(file), "--set", "updater.history_items=70", "config", "--changed")
    done = freshet(*arguments, environment=environment)
    assert done.exit_code == 0, done
    lines = {line.split("=")[0].strip("# ").split(" ")[0]: line for line in done.output.splitlines() if "=" in line}
    shown = {name: line.partition("#")[2].strip() for name, line in lines.items()}
    assert shown["partitions"] == f"{file}:2"
    assert shown["history_items"] == "--set updater.history_items" and "70" in lines["history_items"]
    assert shown["poll_seconds"] == "FRESHET_UPDATER_POLL_SECONDS"
    assert shown["bootstrap_servers"] == shown["sasl_username"] == str(properties)
    assert "# sasl_password is set" in done.output and str(password) in done.output
    assert "hush" not in done.output and "hush" not in done.errors


def test_what_is_shown_is_a_settings_file_with_the_same_settings(tmp_path: Path) -> None:
    file, again = tmp_path / "freshet.toml", tmp_path / "again.toml"
    file.write_text('[events."cart.add"]\nstrength = 0.5\n[model]\ndims = [10]\n[model.latent]\nwidth = 30\n')
    again.write_text(freshet("--config", str(file), "config").output)

    def plain(path: Path) -> list[str]:
        return [line.partition("#")[0] for line in freshet("--config", str(path), "config").output.splitlines()]

    assert plain(again) == plain(file)


def test_the_reference_is_that_of_the_code() -> None:
    document = (ROOT / "docs" / "configuration.md").read_text()
    assert document == freshet("config", "--reference").output, "write it again: make docs"
