"""`freshet api` and `freshet token`: lists and events over HTTP, and tokens for access."""

from __future__ import annotations

from pathlib import Path

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import TOPICS, Group, PathText, Renamed, command
from stream.cli.settings import Settings
from stream.cli.starting import own_folder, started, topic_plan

__all__ = ["api", "token"]


@command(
    "api",
    TOPICS,
    Group("API", "api.state_dir", "api.host", "api.port", "api.advertise", "api.session_seconds", "api.access_log"),
    Group(
        "Who may ask",
        "api.tokens_file",
        Renamed("api.cors_origins", "--cors-origin"),
        "api.requests_per_second",
        Renamed("api.body_bytes", "--body-mib", 1024 * 1024),
    ),
    Group("Waiting", "api.wait_seconds", "api.stale_seconds", "api.drain_seconds"),
    sections=("process", "topics", "limits", "events", "items", "api"),
)
def api(settings: Settings) -> None:
    """Lists, histories and events over HTTP; several instances share the users.

    Try it: curl http://127.0.0.1:8080/v1/users/ann/recommendations. The document /openapi.json describes all of it.
    """
    from stream.api.config import ApiConfig
    from stream.api.server import run_api
    from stream.process import end_process

    config = settings.read(ApiConfig)
    stop = started(settings, grace_seconds=config.drain_seconds + 10)
    own_folder(settings["api.state_dir"])
    end_process(run_api(config, kafka_connection(settings), topic_plan(settings), stop))


@command("token", sections=("process",))
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "write", "admin"]),
    multiple=True,
    default=("read",),
    help="What the token allows; repeat it for several.",
)
@click.option(
    "--file",
    type=PathText(),
    default=Path("freshet-tokens.toml"),
    help="Tokens file to add it to.",
)
def token(settings: Settings, name: str, scope: tuple[str, ...], file: Path) -> None:
    """Make a token for the API, show it once, and add its hash to a tokens file.

    NAME: whose it is; the access log shows this name.
    """
    from stream.api.tokens import add_token

    click.echo(add_token(file, name, list(scope)))
    click.echo(f"added to {file}, which holds only its hash: keep the line above, it is not shown again", err=True)
