import ssl
from enum import Enum

from faust.types.auth import SASLMechanism

class Credentials:
    protocol: Enum

class SASLCredentials(Credentials):
    username: str | None
    password: str | None
    mechanism: SASLMechanism

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        mechanism: SASLMechanism | None = None,
    ) -> None: ...

class SSLCredentials(Credentials):
    def __init__(self, context: ssl.SSLContext | None = None) -> None: ...
