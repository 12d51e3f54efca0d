"""`freshet api` and `freshet token`: lists and events over HTTP, and who may ask."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import Partitions, Prefix, Replication, Servers, StateDir, connect, log_level
from stream.wire.topics import TopicPlan

API_PORT = 8080


def api(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    state_dir: StateDir = Path("freshet-state/api"),
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine it needs tokens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = API_PORT,
    advertise: Annotated[
        str, typer.Option(help="http://host:port by which other instances reach this one; made of host and port.")
    ] = "",
    tokens_file: Annotated[
        Path | None, typer.Option(help="Who may ask; `freshet token` writes it. Read again when it changes.")
    ] = None,
    access_log: Annotated[str, typer.Option(help="JSON lines: a file, - for standard output, or off.")] = "-",
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may read answers, such as https://shop.example.")
    ] = None,
    requests_per_second: Annotated[float, typer.Option(min=1, help="Of one token, or one address without.")] = 2000.0,
    body_mib: Annotated[float, typer.Option(min=0.001, help="Largest request body.")] = 4.0,
    wait_seconds: Annotated[float, typer.Option(min=0, help="Longest wait for a list that knows `as_of`.")] = 2.0,
    stale_seconds: Annotated[
        float, typer.Option(min=1, help="Answers stop when Kafka's end was last reached longer ago than this.")
    ] = 5.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="At the end: longest wait for others to take the partitions over.")
    ] = 5.0,
    session_seconds: Annotated[float, typer.Option(help="Silence after which its partitions move on.")] = 10.0,
) -> None:
    """Lists, histories and events over HTTP; several instances share the users.

    Try it: curl http://127.0.0.1:8080/v1/users/ann/recommendations. The document /openapi.json describes all of it.
    """
    from stream.api.config import ApiConfig
    from stream.api.server import run_api
    from stream.process import end_process, prepare_process

    config = ApiConfig(
        state_dir,
        host=host,
        port=port,
        advertise=advertise,
        tokens_file=tokens_file,
        access_log=access_log,
        cors_origins=tuple(cors_origin or ()),
        requests_per_second=requests_per_second,
        body_bytes=int(body_mib * 1024 * 1024),
        wait_seconds=wait_seconds,
        stale_seconds=stale_seconds,
        drain_seconds=drain_seconds,
        session_seconds=session_seconds,
    )
    stop = prepare_process(log_level(), grace_seconds=drain_seconds + 10)
    end_process(run_api(config, connect(bootstrap_servers), TopicPlan(prefix, partitions, replication_factor), stop))


def token(
    name: Annotated[str, typer.Argument(help="Whose it is; the access log shows this name.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, write or admin; repeat for several.")] = None,
    file: Annotated[Path, typer.Option(help="The tokens file it is added to.")] = Path("freshet-tokens.toml"),
) -> None:
    """Make a token for the API, show it once, and add its hash to a tokens file."""
    from stream.api.tokens import add_token

    print(add_token(file, name, scope or ["read"]))
    print(f"added to {file}, which holds only its hash: keep the line above, it is not shown again", file=sys.stderr)
