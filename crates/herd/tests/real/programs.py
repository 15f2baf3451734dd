# A worker that uses real programs as their users do. GET /NAME runs the exercise of that name and answers what came of
# it; any exception is a 500 with its traceback.
import asyncio
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def python():
    """Threads, subprocesses, pipes, signals, and an event loop with a child."""
    sums = []
    threads = [threading.Thread(target=lambda n=n: sums.append(sum(range(n)))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sums) == 20, sums

    piped = subprocess.run(["tr", "a-z", "A-Z"], input="piped", capture_output=True, text=True, check=True).stdout
    sleeper = subprocess.Popen(["sleep", "600"])
    sleeper.send_signal(signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM

    async def child():
        process = await asyncio.create_subprocess_exec("echo", "awaited", stdout=subprocess.PIPE)
        output, _ = await process.communicate()
        return output.decode().strip()

    with tempfile.NamedTemporaryFile("w") as file:
        file.write("x")
        file.flush()
        assert os.path.getsize(file.name) == 1
    # A user of its own has a name and a home here.
    assert os.path.expanduser("~") == "/workspace", os.path.expanduser("~")
    return f"{piped} {asyncio.run(child())}"


def git():
    repository = pathlib.Path("/workspace/repository")
    run("git", "init", "-q", str(repository))
    (repository / "file").write_text("content\n")
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    run("git", "add", ".", cwd=repository)
    run("git", *identity, "commit", "-q", "-m", "The first one", cwd=repository)
    run("git", "clone", "-q", str(repository), "/workspace/clone")
    return run("git", "log", "--format=%s", cwd="/workspace/clone")


def compiler():
    pathlib.Path("/workspace/hello.c").write_text(
        '#include <stdio.h>\nint main(void) { return puts("compiled and run") < 0; }\n'
    )
    run("gcc", "-O2", "-o", "/workspace/hello", "/workspace/hello.c")
    return run("/workspace/hello")


def redis():
    server = subprocess.Popen(["redis-server", "--port", "7000", "--save", "", "--dir", "/workspace"], stdout=subprocess.PIPE)
    for line in server.stdout:
        if b"eady to accept connections" in line:
            break
    with socket.create_connection(("127.0.0.1", 7000)) as connection:
        connection.sendall(b"SET x 41\r\nINCR x\r\n")
        answer = connection.makefile("rb")
        said = answer.readline() + answer.readline()
        connection.sendall(b"SHUTDOWN NOSAVE\r\n")
    assert server.wait(30) == 0
    return said.decode().replace("\r\n", " ").strip()


def postgres():
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    data = "/workspace/data"
    run(programs / "initdb", "-D", data, "-A", "trust", "-U", "me", "--no-sync")
    options = "-c listen_addresses= -c unix_socket_directories=/workspace -c fsync=off"
    with open("/workspace/postgres.log", "w") as log:
        started = subprocess.run(
            [programs / "pg_ctl", "-D", data, "-w", "-o", options, "start"], stdout=log, stderr=log, timeout=60
        )
    assert started.returncode == 0, pathlib.Path("/workspace/postgres.log").read_text()
    query = "create table t as select generate_series(1, 1000) as n; select sum(n) from t"
    answer = run(programs / "psql", "-h", "/workspace", "-U", "me", "-d", "postgres", "-qAtc", query)
    run(programs / "pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
    return answer


def chromium():
    page = pathlib.Path("/workspace/page.html")
    page.write_text("<p id=p></p><script>document.getElementById('p').textContent = 'rendered ' + 6 * 7</script>")
    # With the browser's own sandbox.
    flags = ["--headless", "--disable-gpu", "--user-data-dir=/workspace/profile", "--dump-dom"]
    return run(shutil.which("chromium"), *flags, page.as_uri())


EXERCISES = {exercise.__name__: exercise for exercise in [python, git, compiler, redis, postgres, chromium]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, text = 200, "ok"
        if exercise := EXERCISES.get(self.path.strip("/")):
            try:
                text = exercise()
            except Exception:
                status, text = 500, traceback.format_exc()
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
