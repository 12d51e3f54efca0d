"""A Prometheus server for this machine's processes: `prometheus`, or the program that `FRESHET_PROMETHEUS` names."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["LocalPrometheus", "PrometheusError", "configuration", "find_prometheus"]

log = logging.getLogger(__name__)

RULES = Path(__file__).parents[1] / "alerts.yml"


class PrometheusError(RuntimeError):
    """Prometheus did not start or did not answer; the message has the end of its log."""


def find_prometheus(environment: Mapping[str, str]) -> str | None:
    """The program to start: `FRESHET_PROMETHEUS`, else `prometheus` on the path; None when there is none."""
    return shutil.which(environment.get("FRESHET_PROMETHEUS") or "prometheus")


def configuration(
    jobs: Mapping[str, Sequence[str]], scrape_seconds: float = 5.0, rules: Path = RULES
) -> dict[str, Any]:
    """Prometheus's configuration for jobs and their host:port addresses, with rules. JSON is YAML.

    >>> configuration({"freshet-updater": ["127.0.0.1:9101"]})["scrape_configs"][0]["static_configs"]
    [{'targets': ['127.0.0.1:9101']}]
    """
    every = f"{int(scrape_seconds * 1000)}ms"
    return {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in jobs.items()
        ],
    }


class LocalPrometheus:
    """A Prometheus server that runs inside of a `with` block, with its data in `folder`. Raises `PrometheusError`."""

    def __init__(
        self,
        program: str,
        jobs: Mapping[str, Sequence[str]],
        folder: Path,
        port: int,
        scrape_seconds: float = 5.0,
        start_seconds: float = 30.0,
        rules: Path = RULES,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._start_seconds = folder, start_seconds
        self._log = folder / "prometheus.log"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.json"
        config.write_text(json.dumps(configuration(jobs, scrape_seconds, rules), indent=1))
        self._command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=7d",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalPrometheus:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.close()
        end = self._log.read_text(errors="replace")[-1000:]
        raise PrometheusError(f"{self._command[0]} is not ready at {self.url}; its log ends:\n{end}")

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of an expression: dicts with `metric` (labels) and `value` [time, text]."""
        arguments = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except (urllib.error.URLError, OSError) as error:
            raise PrometheusError(f"{self.url} did not answer {expression!r}: {error}") from error
