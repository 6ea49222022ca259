"""Schemathesis against `amberdb serve`: requests made of the OpenAPI document, right and wrong.

    PYTHONPATH=tests python tests/fuzz/campaign_http.py --schemathesis PROGRAM
        [--seconds S] [--seed X] [--json PATH]

It fails when a check of schemathesis does (a 5xx, an answer that is not as the document says, wrong
data accepted), when the server said anything on stderr but of requests that are not HTTP, when it
did not end cleanly, or when the database is not sound then. One check is left out, that valid data
is always accepted: a schema cannot say that integers have 64 bits, or which layer has which
categories.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import amberdb
from support.serving import serving

LEFT_OUT = "positive_data_acceptance"
NOT_HTTP = "Invalid HTTP request received."


def main() -> int:
    parser = argparse.ArgumentParser(description="schemathesis against the HTTP server")
    parser.add_argument("--schemathesis", required=True)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    seed = random.randrange(1 << 30) if options.seed is None else options.seed
    program = Path(options.schemathesis).absolute()
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="amberdb-http-") as directory:
        path = Path(directory) / "t.amber"
        report = Path(directory) / "report.json"
        with serving(path, "--requests-per-s", "100000") as server:
            code = subprocess.run(
                [
                    program,
                    "run",
                    f"{server.url}/openapi.json",
                    "--no-color",
                    "--exclude-checks",
                    LEFT_OUT,
                    "--continue-on-failure",
                    f"--max-time={options.seconds}",
                    f"--seed={seed}",
                    f"--report-json-path={report}",
                ],
                check=False,
                cwd=directory,  # what it keeps for the next run goes with it
            ).returncode
            server.process.send_signal(signal.SIGTERM)
            _, errors = server.process.communicate(timeout=60)
            ended = server.process.returncode
        said = [line for line in errors.splitlines() if line != NOT_HTTP]
        checked = amberdb.check(path)
        found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    result = {
        "seconds": options.seconds,
        "seed": seed,
        "schemathesis": code,
        "server_ended_with": ended,
        "server_said": said[:20],
        "is_sound": checked.ok,
        "report": found,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "report"}))
    return 0 if not code and not ended and not said and checked.ok else 1


if __name__ == "__main__":
    sys.exit(main())
