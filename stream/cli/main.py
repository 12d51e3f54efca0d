"""The command `freshet`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from stream.cli import (
    api,
    backtest,
    backups,
    cluster,
    config,
    dead_letters,
    demo,
    evaluate,
    kafka,
    leaving,
    models,
    pilot,
    reproduce,
    sinks,
    sources,
    workers,
)
from stream.cli.options import PathText
from stream.cli.settings import Settings, SettingsError
from stream.cli.settings_file import SettingsFileError
from stream.cli.starting import Impossible
from stream.clients.connection import ConnectionConfigError
from stream.process import REFUSED

__all__ = ["app", "main"]

# Exit codes of errors. 2: a person must change something first. 1: it failed while running, and a retry may help.
FAILED = 1


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True},
    epilog="Every setting of every command: `freshet config`, and docs/configuration.md.",
)
@click.option(
    "--config",
    "file",
    type=PathText(),
    envvar="FRESHET_CONFIG",
    help="Settings file (TOML) of all commands.",
    show_envvar=True,
)
@click.option(
    "--set", "overrides", metavar="NAME=VALUE", multiple=True, help="Any setting: --set updater.poll_records=500."
)
@click.option("--check", is_flag=True, help="Check the settings of the command, and do nothing else.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False))
@click.version_option(package_name="freshet", message="freshet %(version)s")
@click.pass_context
def app(ctx: click.Context, file: Path | None, overrides: tuple[str, ...], check: bool, log_level: str | None) -> None:
    """A streaming incremental recommender: events in, refreshed recommendations out, a model that keeps learning.

    Start with `freshet demo`.
    """
    settings = Settings(file, os.environ, overrides)
    if log_level is not None:
        settings = settings.with_options({("process", "log_level"): (log_level, "--log-level")})
    ctx.obj = settings


for command in (
    demo.demo,
    workers.up,
    workers.updater,
    workers.scorer,
    workers.trainer,
    api.api,
    api.token,
    sinks.sink,
    leaving.export,
    leaving.user,
    backups.backup,
    backups.restore,
    sources.replay,
    sources.simulate,
    reproduce.reproduce,
    evaluate.evaluate,
    backtest.backtest,
    models.model,
    pilot.pilot,
    config.config,
    kafka.broker,
    cluster.doctor,
    dead_letters.dead_letters,
    cluster.repartition,
):
    app.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. An error that a person can correct is printed as one readable line, with exit code 2."""
    try:
        sys.exit(app(args=arguments, prog_name="freshet", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.UsageError as error:
        _refuse(*_usage(error))
    except click.ClickException as error:
        _refuse("freshet", error.format_message())
    except click.Abort:
        sys.exit(130)
    except (SettingsError, SettingsFileError, Impossible, ConnectionConfigError) as error:
        _refuse("freshet", str(error))
    except Exception as error:
        line = _expected(error)
        if line is None:
            raise
        code, text = line
        click.echo(f"freshet: {text}", err=True)
        sys.exit(code)


def _refuse(command: str, problem: str) -> None:
    click.echo(f"{command}: {' '.join(problem.split())}", err=True)
    sys.exit(REFUSED)


def _usage(error: click.UsageError) -> tuple[str, str]:
    command = error.ctx.command_path if error.ctx is not None else "freshet"
    if isinstance(error, click.BadParameter) and error.param is not None:
        where = error.param.opts[0] if isinstance(error.param, click.Option) else error.param.human_readable_name
        return command, f"{where}: {error.message}; `{command} --help` explains it"
    if isinstance(error, click.NoSuchOption) and any(error.option_name in param.opts for param in app.params):
        return command, f"{error.option_name} stands before the command: freshet {error.option_name} ... COMMAND"
    return command, f"{error.format_message()} `{command} --help` shows what there is"


def _expected(error: Exception) -> tuple[int, str] | None:
    """Exit code and text of an error whose cause is outside of this code; None for all other errors."""
    from kafka.errors import AuthorizationError, KafkaError

    from ops.local.kafka_install import BrokerError
    from stream.api.config import ApiConfigError
    from stream.clients.names import NameTaken
    from stream.clients.schema_registry import RegistryUnavailable
    from stream.cluster.repartition import RepartitionError
    from stream.leaving.folder import LeavingError
    from stream.letters.reading import LetterError
    from stream.pilots.pilot import PilotError
    from stream.registry.slots import NoWayBack
    from stream.sinks.config import SinkConfigError
    from stream.sources.log.options import LogError
    from stream.sources.outbox import SourceError
    from stream.trainer.lock import SecondTrainer
    from stream.wire.topics import TopicError

    refusals = (
        *(ApiConfigError, BrokerError, LeavingError, LetterError, LogError, NameTaken, NoWayBack, RepartitionError),
        *(PilotError, SecondTrainer, SinkConfigError, SourceError, TopicError),
    )
    if isinstance(error, refusals):
        return REFUSED, str(error)
    if isinstance(error, RegistryUnavailable):
        return FAILED, f"{error}; the records that need it are good, and can be read when it answers"
    if isinstance(error, AuthorizationError):
        return REFUSED, (
            f"Kafka refuses what this user has no right to: {error}. "
            "`freshet doctor` names every right that is missing, with the command that grants it"
        )
    if isinstance(error, KafkaError):
        return FAILED, (
            f"{type(error).__name__}: {error}. Is Kafka up, is FRESHET_BOOTSTRAP_SERVERS right, and do the "
            "certificates and credentials fit? --log-level debug shows what the brokers answered."
        )
    return None
