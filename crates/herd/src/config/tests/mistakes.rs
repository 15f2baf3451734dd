//! Every kind of mistake, with what is said of it.

use super::*;

#[test]
fn each_mistake_is_told_with_its_place_its_text_and_what_is_allowed() {
    let table = [
        // Addresses and paths
        (
            "network: {data_bind: 8080}",
            "1:22: network.data_bind: `8080` is no address; write IP:PORT such as 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "network: {data_bind: ':8080'}",
            "1:22: network.data_bind: `:8080` is no address; write an IP before it: 127.0.0.1, or 0.0.0.0 for all interfaces",
        ),
        (
            "network: {data_bind: 127.0.0.1:99999}",
            "1:22: network.data_bind: `127.0.0.1:99999` is no address; write IP:PORT such as 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "network: {admin_bind: 0.0.0.0:8081}",
            "1:23: network.admin_bind: `0.0.0.0:8081` is not on loopback, and whoever reaches the admin API could end every session; write `admin_token_file` too, a loopback address such as 127.0.0.1:8081, or off",
        ),
        (
            "network: {admin_bind: 127.0.0.1:8080}",
            "1:23: network.admin_bind: `127.0.0.1:8080` is the data plane's address as well; give each a port of its own",
        ),
        (
            "network:\n  control_socket: herd.sock",
            "2:19: network.control_socket: `herd.sock` is not an absolute path; write a path that starts with /",
        ),
        (
            "network: {control_socket: /run/}",
            "1:27: network.control_socket: `/run/` names no file; write the path of the socket, such as /run/herd/herd.sock",
        ),
        // Session keys
        (
            "network: {session_key: banana}",
            "1:24: network.session_key: `banana` is no session key; allowed: header:NAME, cookie:NAME, query:NAME, path:N, host",
        ),
        (
            "network: {session_key: [host, 'path:0']}",
            "1:31: network.session_key[1]: `path:0` is no session key; allowed: header:NAME, cookie:NAME, query:NAME, path:N, host",
        ),
        (
            "network: {session_key: []}",
            "1:24: network.session_key: is an empty list; write header:X-Session-ID, cookie:NAME, query:NAME, path:N or host",
        ),
        (
            "network: {session_key: ['path:0']}",
            "1:25: network.session_key[0]: `path:0` is no session key; allowed: header:NAME, cookie:NAME, query:NAME, path:N, host",
        ),
        (
            "network: {session_key: 'header:X Y'}",
            "1:24: network.session_key: `header:X Y` names no header that could carry a session ID; allowed: header:NAME, cookie:NAME, query:NAME, path:N, host",
        ),
        (
            "telemetry: {log_level: warning}",
            "1:24: telemetry.log_level: `warning` is not one of the words allowed here; did you mean warn? allowed: error, warn, info, debug, trace",
        ),
        // Keys
        (
            "network: {lookup_onyl: true}",
            "1:11: network.lookup_onyl: is an unknown key; did you mean `lookup_only`? known in `network`: data_bind, admin_bind, control_socket, session_key, lookup_only, drain_timeout, response_timeout, max_connections, threads, tls, admin_tls, admin_token_file, admin_hosts",
        ),
        (
            "wroker: {}",
            "1:1: wroker: is an unknown key; did you mean `worker`? known at the top level: network, worker, resources, sandbox, pools, routes, access, tenants, webhooks, telemetry",
        ),
        (
            "network: {lookup_only: true, lookup_only: true}",
            "1:30: network.lookup_only: is written twice, first on line 1; keep one of them",
        ),
        ("network: [a]", "1:10: network: is a list and not a map of settings; write `key: value` lines"),
        ("network: {data_bind: [a]}", "1:22: network.data_bind: is a list and not a single value; write one value"),
        ("just text", "1:1: `just text` is not a map of settings; write `key: value` lines"),
        // The worker
        (
            "worker: {command: python3}",
            "1:19: worker.command: `python3` is not a list; write [one, two] or a line `- one` for each",
        ),
        (
            "worker: {command: []}",
            "1:19: worker.command: is an empty list; write the program and its arguments, or leave it out to run the built-in REPL",
        ),
        ("worker: {command: ['', a]}", "1:20: worker.command[0]: `` is an empty program; write the program to run"),
        (
            "worker: {command: [a, '{{.Prot}}']}",
            "1:23: worker.command[1]: `{{.Prot}}` is not known; allowed are `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}`, `{{.Workspace}}`",
        ),
        (
            "worker: {command: [a, null]}",
            "1:23: worker.command[1]: has no value; write one, or leave the key out to get its default",
        ),
        (
            "worker: {cwd: '{{.Nope}}'}",
            "1:15: worker.cwd: `{{.Nope}}` is not known; allowed are `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}`, `{{.Workspace}}`",
        ),
        (
            "worker: {cwd: '{{.Port}}'}",
            "1:15: worker.cwd: `{{.Port}}` is not an absolute path; write a path that starts with /",
        ),
        (
            "worker: {ready: 'stdout:('}",
            "1:17: worker.ready: the regular expression cannot be used: unclosed group; correct it",
        ),
        (
            "worker:\n  command: [a, {{.Port}}]",
            "2:17: the file has `{{.Port}}` outside of quotes, where braces are maps for YAML; quote it: \"{{.Port}}\"; the rest is checked afterwards",
        ),
        (
            "worker:\n  command: ['{{.Port}}', --port={{.Port}}]",
            "2:33: the file has `--port={{.Port}}` outside of quotes, where braces are maps for YAML; quote it: \"--port={{.Port}}\"; the rest is checked afterwards",
        ),
        ("worker: {env: [A]}", "1:16: worker.env[0]: `A` has no =; write NAME=VALUE"),
        (
            "worker: {env: [MY-TOKEN=hush]}",
            "1:16: worker.env[0]: `MY-TOKEN` is no name of a variable; write NAME=VALUE with a NAME of letters, digits and _",
        ),
        ("worker: {env: [A=1, A=2]}", "1:21: worker.env[1]: `A` is set a second time; keep one of them"),
        (
            "worker: {env: ['TOKEN=hush{{.Nope}}']}",
            "1:16: worker.env[0]: `{{.Nope}}` is not known; allowed are `{{.Port}}`, `{{.Socket}}`, `{{.WorkerID}}`, `{{.Workspace}}`",
        ),
        ("worker: {env: [PORT=80]}", "1:16: worker.env[0]: herd sets it to the worker's own port; leave it out"),
        ("worker: {cwd: tmp}", "1:15: worker.cwd: `tmp` is not an absolute path; write a path that starts with /"),
        (
            "worker: {listen: prot}",
            "1:18: worker.listen: `prot` is not one of the words allowed here; did you mean port? allowed: port, socket, inherit",
        ),
        (
            "worker: {ready: soon}",
            "1:17: worker.ready: `soon` is not a way to be ready; allowed: http, http:/PATH, tcp, socket, stdout:REGEX, notify, command:TEXT",
        ),
        (
            "worker: {listen: socket, ready: tcp}",
            "1:33: worker.ready: `tcp` needs a port, and the worker listens on a socket; use `socket`",
        ),
        (
            "worker: {health_path: health}",
            "1:23: worker.health_path: `health` is no HTTP path; write a path such as /health, without spaces",
        ),
        (
            "worker: {start_timeout: 0s}",
            "1:25: worker.start_timeout: `0s` is zero; write a duration above zero, such as 500ms or 15m",
        ),
        (
            "worker: {stop_signal: TREM}",
            "1:23: worker.stop_signal: `TREM` is no signal; write its name or number, such as TERM, SIGTERM or 15",
        ),
        ("worker: {http2: 'true'}", "1:17: worker.http2: `true` is a quoted text; write it without quotes"),
        ("worker: {http2: yes}", "1:17: worker.http2: `yes` is neither true nor false; write true or false"),
        // Resources
        (
            "resources: {min_workers: 5, max_workers: 3}",
            "1:26: resources.min_workers: `5` is above the most workers there may be, which are 3; write at most 3, or allow more workers",
        ),
        (
            "resources: {spare: 11}",
            "1:20: resources.spare: `11` is above the most workers there may be, which are 10 by default; write at most 10, or allow more workers",
        ),
        (
            "resources: {max_workers: 0}",
            "1:26: resources.max_workers: `0` is no whole number above 0; write a number such as 10",
        ),
        (
            "resources: {min_workers: -1}",
            "1:26: resources.min_workers: `-1` is no whole number in range; write a number such as 10",
        ),
        ("resources: {max_workers: '3'}", "1:26: resources.max_workers: `3` is a quoted text; write it without quotes"),
        (
            "resources: {ttl: 5}",
            "1:18: resources.ttl: `5` has a number without a unit (ms, s, m, h, d); write a duration such as 500ms, 15m or 1h30m",
        ),
        (
            "resources: {ttl: soon}",
            "1:18: resources.ttl: `soon` is no duration; write a duration such as 500ms, 15m or 1h30m",
        ),
        (
            "resources: {ttl: ~}",
            "1:18: resources.ttl: has no value; write one, or leave the key out to get its default",
        ),
        (
            "resources: {max_waiting: 0}",
            "1:26: resources.max_waiting: `0` is no whole number above 0; write a number such as 10",
        ),
        (
            "resources: {when_full: evict}",
            "1:24: resources.when_full: `evict` is not one of the words allowed here; did you mean evict-idle? allowed: wait, evict-idle",
        ),
        (
            "resources: {pids_limit: 0}",
            "1:25: resources.pids_limit: `0` is no limit of processes; write a number above 0, or -1 for no limit",
        ),
        (
            "resources: {pids_limit: -2}",
            "1:25: resources.pids_limit: `-2` is no limit of processes; write a number above 0, or -1 for no limit",
        ),
        (
            "resources: {cpu_limit_cores: lots}",
            "1:30: resources.cpu_limit_cores: `lots` is no number of cores; write a number such as 0.5 or 2 (0 means no limit)",
        ),
        (
            "resources: {open_files: 3}",
            "1:25: resources.open_files: `3` is no limit of open files; write a number from 16 to 1048576, such as 4096",
        ),
        (
            "resources: {tmp_limit_mb: 0}",
            "1:27: resources.tmp_limit_mb: `0` is no number of mebibytes above 0; write a number such as 64",
        ),
        (
            "resources: {shm_limit_mb: 1.5}",
            "1:27: resources.shm_limit_mb: `1.5` is no number of mebibytes above 0; write a number such as 64",
        ),
        // The sandbox
        (
            "sandbox: {mode: require}",
            "1:17: sandbox.mode: `require` is not one of the words allowed here; did you mean required? allowed: required, best-effort, off",
        ),
        (
            "sandbox: {network: none}",
            "1:20: sandbox.network: `none` is not one of the words allowed here; allowed: private, host, egress",
        ),
        (
            "sandbox: {seccomp: chromium}",
            "1:20: sandbox.seccomp: `chromium` is not one of the words allowed here; allowed: default, browser, off",
        ),
        (
            "sandbox: {seccomp: off, seccomp_log: true}",
            "1:38: sandbox.seccomp_log: `true` has no meaning without a filter of system calls; leave it out, or choose a filter",
        ),
        (
            "worker: {port: 80}",
            "1:16: worker.port: `80` is no port for a worker; write a number from 1024 to 65535, such as 8000",
        ),
        (
            "{worker: {port: 8000}, sandbox: {network: host}}",
            "1:17: worker.port: `8000` has no meaning in the host's network, where herd chooses a free port for each worker; leave it out, or use the private network",
        ),
        (
            "sandbox: {egress_allow: [10.0.0.0/8]}",
            "1:25: sandbox.egress_allow: has no meaning with `network: private`, which reaches nothing outside; leave it out, or write `network: egress`",
        ),
        (
            "sandbox: {network: host, egress_allow: [10.0.0.0/8]}",
            "1:40: sandbox.egress_allow: has no meaning with `network: host`, which reaches everything; leave it out, or write `network: egress`",
        ),
        (
            "sandbox: {network: engress, egress_allow: [10.0.0.0/8]}",
            "1:20: sandbox.network: `engress` is not one of the words allowed here; did you mean egress? allowed: private, host, egress",
        ),
        (
            "sandbox: {seccomp_log: 'yes'}",
            "1:24: sandbox.seccomp_log: `yes` is neither true nor false; write true or false, without quotes",
        ),
        (
            "sandbox: {read_only: ['/srv/{{.WorkerID}}']}",
            "1:23: sandbox.read_only[0]: `/srv/{{.WorkerID}}` has a template in it, which means nothing here; write the path itself",
        ),
        (
            "{worker: {cwd: /srv/app}, sandbox: {hidden: [/srv]}}",
            "1:46: sandbox.hidden[0]: `/srv` hides the working directory; hide less",
        ),
        (
            "{worker: {command: [/opt/app/server]}, sandbox: {hidden: [/opt/app]}}",
            "1:59: sandbox.hidden[0]: `/opt/app` hides the program; hide less",
        ),
        (
            "sandbox: {network: egress, egress_allow: [10.0.0.1/8]}",
            "1:43: sandbox.egress_allow[0]: `10.0.0.1/8` is nothing that a worker could be allowed to reach; allowed: private, metadata, loopback, host, an IPv4 address, or addresses such as 10.1.2.0/24 whose bits after the prefix are 0; names of hosts are not looked up",
        ),
        (
            "sandbox: {network: egress, egress_allow: [db.example.org]}",
            "1:43: sandbox.egress_allow[0]: `db.example.org` is nothing that a worker could be allowed to reach; allowed: private, metadata, loopback, host, an IPv4 address, or addresses such as 10.1.2.0/24 whose bits after the prefix are 0; names of hosts are not looked up",
        ),
        (
            "sandbox: {read_only: [data]}",
            "1:23: sandbox.read_only[0]: `data` is not an absolute path; write a path that starts with /",
        ),
        (
            "sandbox: {read_only: [/srv/../etc]}",
            "1:23: sandbox.read_only[0]: `/srv/../etc` has `..` in it; write the path without",
        ),
        (
            "sandbox: {read_only: [/]}",
            "1:23: sandbox.read_only[0]: `/` is the whole file system of the host; name the directories that are meant",
        ),
        (
            "sandbox: {writable: [/proc/sys]}",
            "1:22: sandbox.writable[0]: `/proc/sys` belongs to /proc, of which a worker sees its own or nothing; leave it out",
        ),
        (
            "sandbox: {writable: [/workspace/a]}",
            "1:22: sandbox.writable[0]: `/workspace/a` belongs to /workspace, which is each worker's own; choose another path, or leave it out",
        ),
        (
            "sandbox: {read_only: [/srv/a, /srv/a/]}",
            "1:31: sandbox.read_only[1]: `/srv/a` is written twice, first as sandbox.read_only[0]; keep one",
        ),
        (
            "sandbox: {read_only: [/srv/a], writable: [/srv/a]}",
            "1:23: sandbox.read_only[0]: `/srv/a` is writable as well, by sandbox.writable[0]; keep one of the two",
        ),
        (
            "sandbox: {writable: [/srv/a/b], hidden: [/srv/a]}",
            "1:42: sandbox.hidden[0]: `/srv/a` hides what sandbox.writable[0] shows; keep one of the two, or hide less",
        ),
        (
            "sandbox: {hidden: [/home/me]}",
            "1:20: sandbox.hidden[0]: `/home/me` is not visible anyway; leave it out: of the host, workers see the system's directories and what you show them",
        ),
        (
            "{network: {control_socket: /run/x/herd.sock}, sandbox: {read_only: [/run]}}",
            "1:69: sandbox.read_only[0]: `/run` would show workers herd's control socket; name something narrower",
        ),
        (
            "sandbox: {workspace: persistent, workspace_dir: /srv/sessions, writable: [/srv]}",
            "1:75: sandbox.writable[0]: `/srv` would show workers the workspaces of all sessions; name something narrower",
        ),
        (
            "sandbox: {workspace_dir: /srv/sessions}",
            "1:26: sandbox.workspace_dir: `/srv/sessions` has no meaning as long as workspaces are removed with their workers; leave it out, or write `workspace: persistent`",
        ),
        (
            "{sandbox: {workspace: persistent}, resources: {spare: 2}}",
            "1:55: resources.spare: `2` wants workers that wait for a session, and with `workspace: persistent` each has to know its own; write 0, or leave it out",
        ),
        (
            "{sandbox: {workspace: persistent}, resources: {worker_reuse: true}}",
            "1:62: resources.worker_reuse: `true` hands a worker to another session, and with `workspace: persistent` each keeps its own; keep one of the two",
        ),
        (
            "sandbox: {uid_range: 0-99}",
            "1:22: sandbox.uid_range: `0-99` begins with 0, which is root; write FIRST-LAST such as 2100000000-2100065535",
        ),
        (
            "sandbox: {uid_range: 70000}",
            "1:22: sandbox.uid_range: `70000` is no range of user IDs; write FIRST-LAST such as 2100000000-2100065535",
        ),
        (
            "sandbox: {uid_range: 70009-70000}",
            "1:22: sandbox.uid_range: `70009-70000` has its smaller number last; write FIRST-LAST such as 2100000000-2100065535",
        ),
        (
            "{sandbox: {uid_range: 70000-70002}, resources: {max_workers: 4}}",
            "1:23: sandbox.uid_range: `70000-70002` has 3 IDs, and there may be 4 workers, each with one of its own; write a larger range, or allow fewer workers",
        ),
        (
            "{sandbox: {mode: best-effort}, resources: {insecure_sandbox: true}}",
            "1:62: resources.insecure_sandbox: `true` contradicts `sandbox.mode`, which wants a sandbox; keep one of the two",
        ),
        // Telemetry
        (
            "telemetry: {log_format: xml}",
            "1:25: telemetry.log_format: `xml` is not one of the words allowed here; allowed: json, text",
        ),
        (
            "telemetry: {log_level: wran}",
            "1:24: telemetry.log_level: `wran` is not one of the words allowed here; did you mean warn? allowed: error, warn, info, debug, trace",
        ),
        (
            "telemetry: {metrics_path: /healthz}",
            "1:27: telemetry.metrics_path: `/healthz` is the health page's path; write another, such as /metrics",
        ),
        // YAML itself
        (
            "a: [",
            "2:1: the file is not valid YAML: while parsing a node, did not find expected node content; correct it; the rest is checked afterwards",
        ),
        (
            "worker: !x {}",
            "1:9: the file has a YAML tag, which configurations don't use; correct it; the rest is checked afterwards",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in table {
        let found = complaints(text);
        if found != format!("herd.yaml:{expected}") {
            wrong.push(format!("{text}\n  expected herd.yaml:{expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "resources:\n  ttl: never\n  max_workers: 2\n  min_workers: 3\nnetwork:\n  data_bind: x\nbanana: 1\n";
    let found = complaints(text);
    let places: Vec<_> = found.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["herd.yaml:2:8", "herd.yaml:4:16", "herd.yaml:6:14", "herd.yaml:7:1"]);
}

#[test]
fn a_socket_path_may_have_107_bytes_and_no_more() {
    let config = |len: usize| format!("network: {{control_socket: /{}}}", "x".repeat(len - 1));
    assert!(load(&config(107)).is_ok());
    assert!(
        complaints(&config(108))
            .contains("has 108 bytes, and the kernel takes 107 for a socket; choose a shorter path")
    );
}

#[test]
fn text_that_is_not_utf_8_is_told_with_its_place() {
    let mut mistakes = Mistakes::of_file("herd.yaml");
    file::read(b"worker: {}\n# caf\xe9\n", Mode::Serve, &|_| None, &mut mistakes);
    assert_eq!(mistakes.to_string(), "herd.yaml:2:6: the file is not UTF-8 text; save it as UTF-8");
}
