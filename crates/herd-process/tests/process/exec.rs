//! Further commands in a worker's sandbox. Each of these tests runs as root and as a user without any privilege.

use std::{fs, time::Duration};

use herd_pool::{Exit, ExitStatus, Worker as _};
use herd_process::{ExecCommand, ExecError, Execution, ProcessWorker, Signal, TerminalSize};
use rustix::process::{Pid, Signal as UnixSignal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use crate::fixture::{exists, get, patiently, role, sandboxed_role, shell, start};

/// A shell script as a further command.
fn script(text: &str) -> ExecCommand {
    let mut command = ExecCommand::new("/bin/sh");
    command.args = vec!["-c".into(), text.into()];
    command
}

fn with_terminal(mut command: ExecCommand, columns: u16, rows: u16) -> ExecCommand {
    command.terminal = Some(TerminalSize { columns, rows });
    command
}

async fn execute(worker: &ProcessWorker, command: ExecCommand) -> Execution {
    patiently(worker.execute(command)).await.expect("it runs")
}

async fn refused(worker: &ProcessWorker, command: ExecCommand) -> ExecError {
    patiently(worker.execute(command)).await.expect_err("it does not run")
}

/// All that it says on both of its streams, and how it ended.
async fn all_of(mut execution: Execution) -> (String, String, Exit) {
    drop(execution.take_input());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let read_output = read_all(execution.take_output(), &mut output);
    let read_errors = read_all(execution.take_errors(), &mut errors);
    let ((), (), exit) = patiently(async { tokio::join!(read_output, read_errors, execution.wait()) }).await;
    (text(&output), text(&errors), exit)
}

async fn read_all(stream: Option<herd_process::ExecOutput>, to: &mut Vec<u8>) {
    if let Some(mut stream) = stream {
        stream.read_to_end(to).await.expect("it can be read");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a script says.
async fn said(worker: &ProcessWorker, text: &str) -> String {
    let (output, errors, exit) = all_of(execute(worker, script(text)).await).await;
    assert_eq!((errors.as_str(), exit.status), ("", ExitStatus::Code(0)), "{output}");
    output.trim_end().to_owned()
}

/// Reads from a stream until this is in what came.
async fn until(stream: &mut herd_process::ExecOutput, wanted: &str) -> String {
    let mut seen = Vec::new();
    while !text(&seen).contains(wanted) {
        let read = patiently(stream.read_buf(&mut seen)).await.expect("it can be read");
        assert_ne!(read, 0, "the end came before {wanted:?}: {:?}", text(&seen));
    }
    text(&seen)
}

/// Waits for the end of a process that is known by its number outside.
async fn gone(pid: u32) {
    patiently(async {
        while exists(pid) {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

const NAMESPACES: &str = "for n in cgroup ipc mnt net pid user uts time; do readlink /proc/self/ns/$n; done";

pub(crate) async fn a_command_is_in_all_namespaces_and_in_the_cgroup_of_the_worker() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let look = format!("{NAMESPACES}; cat /proc/self/cgroup; readlink /proc/self/root; hostname");
    let own = shell(&worker, &look).await;
    assert!(own.lines().count() >= 11, "{own}");
    assert_eq!(said(&worker, &look).await, own);
    // From outside too, where a cgroup is not shown as a root.
    let mut execution = execute(&worker, script("echo up; exec sleep 1000")).await;
    until(&mut execution.take_output().expect("it has one"), "up").await;
    let cgroup = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    assert_eq!(cgroup(execution.pid()), cgroup(worker.pid()));
    assert_ne!(execution.pid(), worker.pid());
}

pub(crate) async fn a_command_has_the_workers_user_filters_and_no_capability() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let fields = "Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Seccomp_filters|SigBlk";
    let look = format!("grep -E '^({fields}):' /proc/self/status; cat /proc/self/uid_map /proc/self/gid_map; umask");
    let own = shell(&worker, &look).await;
    assert!(own.contains("NoNewPrivs:\t1") && own.contains("Seccomp:\t2"), "{own}");
    assert!(own.contains("CapEff:\t0000000000000000") && own.contains("CapBnd:\t0000000000000000"), "{own}");
    assert_eq!(said(&worker, &look).await, own);
    assert_eq!(said(&worker, "grep ^SigIgn: /proc/self/status").await, "SigIgn:\t0000000000000000");
    let limits = "ulimit -a; cat /proc/self/oom_score_adj";
    assert_eq!(said(&worker, limits).await, shell(&worker, limits).await);
}

pub(crate) async fn a_command_has_the_workers_environment_and_directory_but_for_what_is_named() {
    let worker = start(sandboxed_role(&["serve"]).env("COLOUR", "red").env("SIZE", "big")).await;
    assert_eq!(said(&worker, "pwd; echo $COLOUR $SIZE $HOME").await, "/workspace\nred big /workspace");
    let mut command = script("pwd; echo $COLOUR $SIZE $TERM; env | grep -c ^COLOUR=");
    command.env = vec![("COLOUR".into(), "blue".into()), ("TERM".into(), "dumb".into())];
    command.directory = Some("/tmp".into());
    let (output, ..) = all_of(execute(&worker, command).await).await;
    assert_eq!(output, "/tmp\nblue big dumb\n1\n");
    // Files of the one are files of the other.
    said(&worker, "echo written > /workspace/file").await;
    assert_eq!(shell(&worker, "cat /workspace/file").await, "written");
}

pub(crate) async fn a_command_holds_three_descriptors_and_nothing_of_the_daemon() {
    let worker = start(sandboxed_role(&["serve"])).await;
    assert_eq!(said(&worker, "ls /proc/$$/fd").await, "0\n1\n2");
    let (output, ..) = all_of(execute(&worker, with_terminal(script("ls /proc/$$/fd"), 80, 24)).await).await;
    let held: Vec<_> = output.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    // A shell opens its terminal once more.
    assert!(held.iter().all(|word| matches!(*word, "0" | "1" | "2" | "10" | "255")), "{output}");
    let links = said(&worker, "for n in 0 1 2; do readlink /proc/$$/fd/$n; done").await;
    assert!(links.lines().all(|link| link.starts_with("pipe:")), "{links}");
}

pub(crate) async fn a_commands_end_is_told_and_does_not_end_the_worker() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let (output, errors, exit) = all_of(execute(&worker, script("echo one; echo two >&2; exit 7")).await).await;
    assert_eq!((output.as_str(), errors.as_str(), exit.status), ("one\n", "two\n", ExitStatus::Code(7)));
    let (.., exit) = all_of(execute(&worker, script("kill -9 $$")).await).await;
    assert_eq!(exit.status, ExitStatus::Signal(9));
    assert_eq!(get(&worker, "/pid").await, "2");
    patiently(worker.healthy()).await.expect("it is healthy");
}

pub(crate) async fn input_reaches_the_command_up_to_its_end_and_all_output_can_be_read_after() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let mut execution = execute(&worker, script("cat; echo end >&2")).await;
    let mut input = execution.take_input().expect("it has one");
    let mut output = execution.take_output().expect("it has one");
    assert!(execution.take_input().is_none());
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        input.write_all(&copy).await.expect("it reads");
        input.shutdown().await.expect("it ends");
        assert!(input.write_all(b"more").await.is_err(), "it has ended");
    });
    let mut received = Vec::new();
    patiently(output.read_to_end(&mut received)).await.expect("it can be read");
    writer.await.expect("no panic");
    assert!(received == sent);
    // What was said last is there though the command has ended.
    assert_eq!(patiently(execution.wait()).await.status, ExitStatus::Code(0));
    let mut errors = String::new();
    let mut stream = execution.take_errors().expect("it has one");
    patiently(stream.read_to_string(&mut errors)).await.expect("it can be read");
    assert_eq!(errors, "end\n");
}

pub(crate) async fn a_command_that_closes_its_streams_goes_on() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let mut execution = execute(&worker, script("exec >&- 2>&-; read line; exit $line")).await;
    let mut rest = Vec::new();
    read_all(execution.take_output(), &mut rest).await;
    read_all(execution.take_errors(), &mut rest).await;
    assert_eq!(rest, b"");
    let mut input = execution.take_input().expect("it has one");
    patiently(input.write_all(b"5\n")).await.expect("it reads");
    assert_eq!(patiently(execution.wait()).await.status, ExitStatus::Code(5));
}

pub(crate) async fn a_terminal_is_one_for_the_command_and_can_be_resized() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let text = "trap 'stty size' WINCH; tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; : > /dev/tty \
                && ls -ln $(tty); cat < $(tty) > /dev/null & echo ready; while :; do sleep 0.05; done";
    let mut execution = execute(&worker, with_terminal(script(text), 101, 42)).await;
    assert!(execution.take_errors().is_none());
    let mut output = execution.take_output().expect("it has one");
    let seen = until(&mut output, "ready").await;
    assert!(seen.contains("/dev/pts/0") && seen.contains("42 101") && seen.contains("all"), "{seen}");
    let uid = shell(&worker, "id -u").await;
    assert!(seen.contains(&format!(" {uid} ")), "it belongs to the worker's user: {seen}");
    execution.resize(TerminalSize { columns: 77, rows: 33 }).expect("it is a terminal");
    until(&mut output, "33 77").await;
    // A key, and what it does.
    let mut input = execution.take_input().expect("it has one");
    patiently(input.write_all(b"\x03")).await.expect("it reads");
    assert_eq!(patiently(execution.wait()).await.status, ExitStatus::Signal(2));
    let mut rest = Vec::new();
    patiently(output.read_to_end(&mut rest)).await.expect("it ends with the command");
}

pub(crate) async fn nothing_can_be_typed_into_a_terminal_by_a_program() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let text = "perl -e '$c = \"x\"; ioctl(STDIN, 0x5412, $c) or print \"refused: $!\\n\"'";
    let (output, _, exit) = all_of(execute(&worker, with_terminal(script(text), 80, 24)).await).await;
    assert_eq!(exit.status, ExitStatus::Code(0), "{output}");
    assert!(output.contains("refused: Operation not permitted"), "{output}");
}

pub(crate) async fn no_terminal_of_the_host_is_reached_from_a_command() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let (output, ..) =
        all_of(execute(&worker, with_terminal(script("ls /dev/pts; stat -c %d /dev/pts"), 80, 24)).await).await;
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!(words[..2], ["0", "ptmx"], "{output}");
    assert_eq!(words[2], shell(&worker, "stat -c %d /dev/pts").await, "the worker's own");
}

pub(crate) async fn a_signal_reaches_the_commands_whole_group() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let text = "trap 'echo caught; exit 3' TERM; (trap 'echo too; exit' TERM; echo b; while :; do sleep 0.05; done) & \
                echo a; while :; do sleep 0.05; done";
    let mut execution = execute(&worker, script(text)).await;
    let mut output = execution.take_output().expect("it has one");
    let seen = until(&mut output, "a").await;
    if !seen.contains('b') {
        until(&mut output, "b").await;
    }
    execution.signal(Signal::TERM).expect("it runs");
    assert_eq!(patiently(execution.wait()).await.status, ExitStatus::Code(3));
    assert!(matches!(execution.signal(Signal::TERM), Err(ExecError::NotRunning)));
    assert_eq!(get(&worker, "/pid").await, "2", "the worker has got none");
}

pub(crate) async fn dropping_it_kills_all_of_its_session_and_nothing_else() {
    let worker = start(sandboxed_role(&["serve"])).await;
    // With job control each job has a group of its own.
    let text = "set -m; trap '' TERM HUP; sleep 1001 & sleep 1002 & sh -c 'trap \"\" TERM; sleep 1003; :' & \
                setsid sleep 1004 & while [ $(ps -eo args | grep -c '^sleep 100[1-4]') -lt 4 ]; do sleep 0.02; done; \
                echo up; sleep 1005";
    let mut execution = execute(&worker, script(text)).await;
    let mut output = execution.take_output().expect("it has one");
    until(&mut output, "up").await;
    let pid = execution.pid();
    drop(execution);
    gone(pid).await;
    let count = "ps -eo args | grep '^sleep 100[1-5]' | sort";
    patiently(async {
        while shell(&worker, count).await != "sleep 1004" {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // What took a session of its own has stayed, and ends with the worker.
    patiently(worker.kill()).await;
    assert!(!exists(worker.init_pid()));
}

pub(crate) async fn what_a_command_leaves_behind_ends_with_it() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let (output, _, exit) = all_of(execute(&worker, script("sleep 1001 & echo left")).await).await;
    assert_eq!((output.as_str(), exit.status), ("left\n", ExitStatus::Code(0)), "its output has ended with it");
}

pub(crate) async fn the_workers_end_ends_a_command() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let execution = execute(&worker, script("trap '' TERM; while :; do sleep 1000; done")).await;
    let pid = execution.pid();
    let (exit, ()) = tokio::join!(execution.wait(), worker.kill());
    assert_eq!(exit.status, ExitStatus::Signal(9));
    assert!(!exists(pid), "it is reaped when the worker is");
    assert!(matches!(refused(&worker, script("true")).await, ExecError::NotRunning));
    assert!(matches!(execution.signal(Signal::TERM), Err(ExecError::NotRunning)));
}

pub(crate) async fn a_crash_of_the_worker_ends_a_command() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let execution = execute(&worker, script("sleep 1000; :")).await;
    // A command is beside the worker, so it is the worker that does it.
    let _ = timeout(Duration::from_secs(10), worker.client().get("/sh/6b696c6c202d392032")).await;
    assert_eq!(patiently(worker.exited()).await.status, ExitStatus::Signal(9));
    assert_eq!(patiently(execution.wait()).await.status, ExitStatus::Signal(9));
    assert!(matches!(refused(&worker, script("true")).await, ExecError::NotRunning));
}

pub(crate) async fn what_cannot_be_run_is_told() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let error = refused(&worker, ExecCommand::new("no-such-program")).await;
    let ExecError::Failed { program, failure } = &error else { panic!("{error:?}") };
    assert_eq!((program.as_str(), failure.step.as_str()), ("no-such-program", "exec"));
    assert!(error.to_string().contains("no program no-such-program in PATH="), "{error}");
    let mut command = script("true");
    command.directory = Some("/root/nowhere".into());
    let error = refused(&worker, command).await;
    assert!(error.to_string().contains("cannot enter /root/nowhere"), "{error}");
    for broken in [ExecCommand::new(""), ExecCommand::new("a\0b"), {
        let mut command = script("true");
        command.directory = Some("tmp".into());
        command
    }] {
        assert!(matches!(refused(&worker, broken).await, ExecError::Command(_)));
    }
    // None of it has changed anything.
    assert_eq!(said(&worker, "echo $PPID").await, "1");
}

pub(crate) async fn so_many_commands_run_at_once_and_no_more() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let mut running = Vec::new();
    for _ in 0..16 {
        running.push(execute(&worker, script("exec sleep 1000")).await);
    }
    let error = refused(&worker, script("true")).await;
    assert!(matches!(error, ExecError::TooMany { limit: 16 }), "{error}");
    let one = running.pop().expect("it runs");
    one.signal(Signal::KILL).expect("it runs");
    patiently(one.wait()).await;
    said(&worker, "true").await;
    for execution in running {
        drop(execution);
    }
    patiently(async {
        while worker.execute(script("true")).await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) async fn a_worker_without_room_for_a_process_is_told_so() {
    // The default, which every host can keep: in a cgroup, or by the worker's user.
    let worker = start(sandboxed_role(&["serve"])).await;
    if worker.limits().pids.is_none() {
        // Without root and without cgroups there is no limit of its own.
        return;
    }
    // It takes every place that there is, and each that becomes free for a while; never more than a few hundred.
    let crowd = "for (1..300) { my $pid = fork; if (defined $pid) { unless ($pid) { sleep 1000; exit } } \
                 else { select undef, undef, undef, 0.02 } } sleep 1000";
    shell(&worker, &format!("perl -e '{crowd}' > /dev/null 2>&1 < /dev/null & true")).await;
    let error = patiently(async {
        loop {
            if let Err(error) = worker.execute(script("true")).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(error, ExecError::Exhausted(_)), "{error:?}");
    assert!(error.to_string().contains("limit"), "{error}");
    patiently(worker.kill()).await;
}

pub(crate) async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let worker = start(sandboxed_role(&["serve"])).await;
    for micros in (0..4000).step_by(200) {
        let _ = timeout(Duration::from_micros(micros), worker.execute(script("exec sleep 1234"))).await;
    }
    patiently(async {
        while !shell(&worker, "ps -eo args | grep '^sleep 1234'; :").await.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn without_a_sandbox_a_command_is_where_the_worker_is() {
    let worker = start(role(&["serve"])).await;
    let look = format!("{NAMESPACES}; cat /proc/self/cgroup; pwd; id -u; grep -E 'Cap|NoNewPrivs' /proc/self/status");
    assert_eq!(said(&worker, &look).await, shell(&worker, &look).await);
    let execution = execute(&worker, script("sleep 1001 & exec sleep 1002")).await;
    let pid = execution.pid();
    drop(execution);
    gone(pid).await;
    patiently(worker.healthy()).await.expect("it is healthy");
}

pub(crate) async fn without_a_sandbox_a_terminal_is_the_hosts_and_the_commands_own() {
    let worker = start(role(&["serve"])).await;
    let command = with_terminal(script("tty; stty size; echo $(ps -o tty= -p $$)"), 90, 30);
    let (output, _, exit) = all_of(execute(&worker, command).await).await;
    assert_eq!(exit.status, ExitStatus::Code(0), "{output}");
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].starts_with("/dev/pts/") && lines[1] == "30 90", "{output}");
    assert_eq!(format!("/dev/{}", lines[2]), lines[0], "it is the controlling one");
}

pub(crate) async fn what_a_worker_with_a_killed_init_had_is_not_running() {
    let worker = start(sandboxed_role(&["serve"])).await;
    let execution = execute(&worker, script("exec sleep 1000")).await;
    let init = Pid::from_raw(worker.init_pid().cast_signed()).expect("a number");
    kill_process(init, UnixSignal::KILL).expect("it runs");
    assert_eq!(patiently(execution.wait()).await.status, ExitStatus::Unknown);
    patiently(worker.exited()).await;
    assert!(!exists(execution.pid()), "the kernel has ended it with the init");
    assert!(matches!(refused(&worker, script("true")).await, ExecError::NotRunning));
}
