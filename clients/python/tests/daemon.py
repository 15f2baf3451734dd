"""A real herd, on ports of its own; its program is in the variable HERD."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""No test waits longer than this for anything."""

WORKER = [sys.executable, str(Path(__file__).with_name("worker.py"))]


class Daemon:
    def __init__(self, command: list[str] | None = None, **sections: Any) -> None:
        """`herd serve` with this configuration, which is JSON, and so YAML. If it has `pools`, all of them are alike."""
        herd = os.environ.get("HERD")
        if herd is None:
            raise RuntimeError("HERD is not set; give it the path of the program herd, or run: cargo xtask test")
        self.directory = Path(tempfile.mkdtemp(prefix="herd-client-"))
        pools = sections.pop("pools", None)
        pool = {
            "worker": {"command": command or WORKER, "stop_grace": "2s", **sections.pop("worker", {})},
            "resources": {"min_workers": 0, "max_workers": 4, "spare": 0, **sections.pop("resources", {})},
            # What is tested is the client, and a worker of its tests lies anywhere.
            "sandbox": {"mode": "off"},
        }
        configuration = {**sections, **(pool if pools is None else {"pools": dict.fromkeys(pools, pool)})}
        file = self.directory / "herd.yaml"
        file.write_text(json.dumps(configuration))
        flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]
        flags += ["--control-socket", str(self.directory / "herd.sock")]
        self.process = subprocess.Popen(
            [herd, "serve", "--config", str(file), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._serving: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._log = threading.Thread(target=self._read_log)
        self._log.start()
        addresses = self._serving.get(timeout=PATIENCE)
        if not addresses:
            self.stop()
            raise RuntimeError("herd does not serve; its log is above")
        self.gateway = f"http://{addresses['gateway']}"
        self.admin_address = f"http://{addresses['admin']}"

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("message") == "serving":
                self._serving.put(event)
        self._serving.put({})

    def admin(self, path: str, method: str = "GET") -> Any:
        """What the admin API answers."""
        try:
            request = urllib.request.Request(self.admin_address + path, method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return {"status": error.code}

    def sessions(self) -> list[str]:
        return [session["id"] for session in self.admin("/v1/sessions")["items"]]

    def pid_of(self, session: str) -> int:
        workers = self.admin("/v1/workers")["items"]
        return int(next(worker["pid"] for worker in workers if worker["session"] == session))

    def kill_worker_of(self, session: str) -> None:
        os.kill(self.pid_of(session), signal.SIGKILL)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def soon(what: Callable[[], T]) -> T:
    """Waits until it gives something."""
    until = time.monotonic() + PATIENCE
    while not (found := what()):
        if time.monotonic() > until:
            raise AssertionError("it did not happen in time")
        time.sleep(0.01)
    return found
