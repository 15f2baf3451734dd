//! Programs that people run, unchanged, under the filters alone.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    process::Command,
};

use super::*;

/// Whom programs run as that refuse to be root: nobody in particular.
const NOBODY: u32 = 65_534;

/// Runs a script in an empty directory of its own, confined, without the rights of root, and gives what it says.
fn run(profile: Seccomp, script: &'static str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    // A program that hangs is a failure, and not one of the next tests.
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", "sh", "-euc", script]).current_dir(directory.path());
    command.env_clear().env("HOME", directory.path()).env("LC_ALL", "C.UTF-8");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if rustix::process::geteuid().is_root() {
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may do that");
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = confined(profile, false, move || command.output().expect("a shell"));
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{}; if a program is missing, `cargo xtask test` installs it\n{said}\n{errors}",
        output.status
    );
    said.into_owned()
}

#[test]
fn python_with_threads_processes_and_sockets() {
    let script = r#"python3 -c '
import asyncio, multiprocessing, os, pty, socket, subprocess, tempfile, threading
from multiprocessing import shared_memory

threads = [threading.Thread(target=lambda: None) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(subprocess.check_output(["echo", "subprocess"], text=True), end="")

async def main():
    process = await asyncio.create_subprocess_exec("echo", "asyncio", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0].decode(), end="")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""

asyncio.run(main())
with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
memory = shared_memory.SharedMemory(create=True, size=4096)
memory.close()
memory.unlink()
os.close(os.memfd_create("memory"))
[os.close(end) for end in pty.openpty()]
socket.getaddrinfo("localhost", 80)
print(socket.if_indextoname(1))
'"#;
    assert_eq!(run(Seccomp::Default, script), "subprocess\nasyncio\n[1, 2]\nlo\n");
}

#[test]
fn node_with_workers_processes_and_a_server() {
    let script = r#"node -e '
const { execFileSync } = require("child_process");
const { Worker } = require("worker_threads");
const http = require("http");
process.stdout.write(execFileSync("echo", ["process"]));
require("os").networkInterfaces();
require("fs").promises.readFile("/etc/passwd").then(() => new Worker("", { eval: true }).on("exit", () => {
    const server = http.createServer((_, response) => response.end("served"));
    server.listen(0, "127.0.0.1", () => http.get({ port: server.address().port }, (response) => {
        response.on("data", (text) => console.log(text.toString())).on("end", () => process.exit(0));
    }));
}));
'"#;
    assert_eq!(run(Seccomp::Default, script), "process\nserved\n");
}

#[test]
fn a_c_compiler_and_what_it_compiled() {
    let script = r#"
printf '#include <stdio.h>\nint main(void) { puts("compiled"); }' > program.c
gcc -O2 -pipe -o program program.c
./program"#;
    assert_eq!(run(Seccomp::Default, script), "compiled\n");
}

#[test]
fn git_commits_clones_and_packs() {
    let script = r#"
git init -q one
cd one
echo text > file
git add file
git -c user.name=name -c user.email=mail commit -qm message
git gc -q
cd ..
git clone -q one two
git -C two log --format=%s"#;
    assert_eq!(run(Seccomp::Default, script), "message\n");
}

#[test]
fn redis_saves_in_the_background() {
    let script = r#"
mkfifo log
redis-server --port 0 --unixsocket "$PWD/socket" --appendonly yes --save '' --daemonize no > log &
{
    sed -n '/eady to accept connections/q'
    for command in ping 'set key value' bgrewriteaof save 'get key' 'shutdown nosave'; do
        redis-cli -s socket $command
    done
    cat > /dev/null
} < log
wait"#;
    let said = run(Seccomp::Default, script);
    assert_eq!(said.lines().collect::<Vec<_>>()[..2], ["PONG", "OK"], "{said}");
    assert!(said.contains("value"), "{said}");
}

#[test]
fn nginx_serves_files() {
    let script = r#"
cat > configuration <<END
pid $PWD/pid; error_log $PWD/errors; worker_processes 2;
events {}
http {
    access_log off; sendfile on; client_body_temp_path $PWD; proxy_temp_path $PWD; fastcgi_temp_path $PWD;
    uwsgi_temp_path $PWD; scgi_temp_path $PWD;
    server { listen unix:$PWD/socket; root $PWD; }
}
END
echo served > file
nginx -e errors -c "$PWD/configuration"
python3 -c '
import socket
client = socket.socket(socket.AF_UNIX)
client.connect("socket")
client.sendall(b"GET /file HTTP/1.0\r\n\r\n")
print(client.makefile().read().split("\n")[-2])
'
nginx -e errors -c "$PWD/configuration" -s quit
! grep -E 'emerg|alert|crit' errors"#;
    assert_eq!(run(Seccomp::Default, script), "served\n");
}

#[test]
fn postgresql_initializes_starts_and_answers() {
    let script = r#"
PATH="$(echo /usr/lib/postgresql/*/bin | tr ' ' ':'):$PATH"
initdb -D data > /dev/null
trap 'pg_ctl -D data -m immediate stop > /dev/null' EXIT
pg_ctl -D data -w -l log -o "-k $PWD -h ''" start > /dev/null
psql -qAt -h "$PWD" -d postgres -c 'create table numbers as select generate_series(1, 10000) number' -c checkpoint \
    -c 'set max_parallel_workers_per_gather = 2' -c 'select sum(number) from numbers'"#;
    assert_eq!(run(Seccomp::Default, script), "50005000\n");
}

#[test]
fn chromium_builds_its_own_sandbox() {
    let script = r#"
chromium --headless --disable-gpu --disable-dev-shm-usage --user-data-dir="$PWD/profile" \
    --dump-dom 'data:text/html,<p id=answer></p><script>answer.textContent = 6 * 7</script>'"#;
    assert!(run(Seccomp::Browser, script).contains(r#"<p id="answer">42</p>"#));
}
