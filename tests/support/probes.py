"""Asking a process's probes."""

import json
import urllib.error
import urllib.request


def probe(port: int, path: str, host: str = "127.0.0.1") -> str:
    """Why the answer is no; empty for yes, and the error when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as page:
            assert json.load(page) == {"status": "ok"}
            return ""
    except urllib.error.HTTPError as error:
        assert error.code == 503 and error.headers["retry-after"]
        return json.load(error)["detail"]
    except OSError as error:
        return f"nobody answers: {error}"
