"""Who may ask the API for what, and how often."""

from pathlib import Path

import pytest
from starlette.requests import Request

from stream.api.access import Access
from stream.api.config import ApiConfig, ApiConfigError
from stream.api.problems import Refusal
from stream.api.tokens import Scope, add_token


def request(*headers: tuple[str, str], client: str = "127.0.0.1") -> Request:
    given = [(name.encode(), value.encode()) for name, value in headers]
    return Request({"type": "http", "headers": given, "client": (client, 5000)})


def refusal(access: Access, request: Request, scope: Scope = "read") -> Refusal:
    with pytest.raises(Refusal) as refused:
        access.check(request, scope)
    return refused.value


def test_beyond_this_machine_nobody_is_served_without_tokens(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "shop.example"):
        with pytest.raises(ApiConfigError, match="needs --tokens-file"):
            ApiConfig(tmp_path, host=host)
        ApiConfig(tmp_path, host=host, tokens_file=tmp_path / "tokens.toml")
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        ApiConfig(tmp_path, host=host)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"])
def test_this_machine_needs_no_token(tmp_path: Path, host: str) -> None:
    assert Access(ApiConfig(tmp_path)).check(request(("host", host)), "admin").name == "local"


@pytest.mark.parametrize(
    "headers",
    [
        [("host", "shop.example")],  # a name of somebody else's that leads here: what a page in a browser can do
        [("host", "127.0.0.1.shop.example:8080")],
        [("host", "")],
        [],
        [("host", "localhost"), ("x-forwarded-for", "203.0.113.9")],
        [("host", "localhost"), ("forwarded", "for=203.0.113.9")],
        [("host", "localhost"), ("via", "1.1 proxy")],
    ],
)
def test_without_tokens_a_proxy_and_a_foreign_name_are_refused(tmp_path: Path, headers: list) -> None:
    assert refusal(Access(ApiConfig(tmp_path)), request(*headers)).status_code == 403


def test_a_token_opens_what_its_scopes_say(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    reader = add_token(path, "reader", ["read"])
    access = Access(ApiConfig(tmp_path, host="0.0.0.0", tokens_file=path))
    given = request(("host", "shop.example"), ("authorization", f"bearer {reader}"))
    assert access.check(given, "read").name == "reader"
    for scope in ("write", "admin"):
        assert refusal(access, given, scope).status_code == 403


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer x", "Basic {}", "{}", "Bearer {} {}"])
def test_anything_but_the_token_is_unauthorized(tmp_path: Path, value: str) -> None:
    path = tmp_path / "tokens.toml"
    secret = add_token(path, "reader", ["read"])
    access = Access(ApiConfig(tmp_path, tokens_file=path))
    refused = refusal(access, request(("authorization", value.replace("{}", secret))))
    assert refused.status_code == 401 and refused.headers == {"www-authenticate": "Bearer"}
    assert refusal(access, request()).status_code == 401


def test_two_tokens_at_once_are_none(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    secret = add_token(path, "reader", ["read"])
    access = Access(ApiConfig(tmp_path, tokens_file=path))
    twice = request(("authorization", f"Bearer {secret}"), ("authorization", "Bearer x"))
    assert refusal(access, twice).status_code == 400


def test_who_asks_too_often_is_told_when_to_come_again_and_others_are_not(tmp_path: Path) -> None:
    now = 0.0
    access = Access(ApiConfig(tmp_path, requests_per_second=5), clock=lambda: now)
    local = request(("host", "localhost"))
    for _ in range(5):
        access.check(local, "read")
    refused = refusal(access, local)
    assert refused.status_code == 429 and refused.headers == {"retry-after": "1"}
    access.check(request(("host", "localhost"), client="127.0.0.2"), "read")
    now = 0.25
    access.check(local, "read")
    assert refusal(access, local).status_code == 429
    now = 100.0
    for _ in range(5):
        access.check(local, "read")
    assert refusal(access, local).status_code == 429
