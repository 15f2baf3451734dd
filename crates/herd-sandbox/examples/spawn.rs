//! Measures how long it takes from the launch of a trivial worker to its first byte: without a sandbox, in one, and in
//! one that bubblewrap builds of the same mounts, in turns.
//!
//! `cargo run --release -p herd-sandbox --example spawn -- turns 100` prints a line of JSON per start:
//! `{"how":"off" | "required" | "bwrap","ready_us":…,"ended_us":…}`, the second for the time from then, when it ends by
//! itself, until it is known that nothing of it is left. Where bubblewrap is missing it has no turn, and others that are not
//! named behind the number, if any are.
//!
//! `… -- alive 500` starts so many in sandboxes and keeps them: `{"alive":500,"per_second":…}` for their start,
//! `{"churn_per_second":…}` for one after another being ended and replaced, `{"init_private_bytes":…}` for the median of
//! the memory that an init shares with nobody, `{"ended_ms":…}` for the end of all.
//!
//! `… -- dial 1000` connects to a port of one worker's private network: `{"dial_us":…,"asked_us":…}` for each time, to a
//! connection with a socket that is at hand, and from the request for one.
//!
//! As root the workers run as users of their own.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::{
    collections::VecDeque,
    env,
    error::Error,
    ffi::OsString,
    fs,
    io::{self, PipeReader, Read, Write},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use herd_sandbox::{Explanation, Host, Identity, Init, Isolation, Mode, Plan, Report, Spec};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{connect, sockopt::socket_error},
    process::geteuid,
};

/// Starts that warm up the caches and are not counted.
const WARM_UP: usize = 5;

/// What a worker is told that shall stay, and one that shall end at once.
const STAY: &str = "stay";
const END: &str = "end";

/// The first of the users of the workers that root starts.
const FIRST_USER: u32 = 2_000_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    herd_sandbox::enter_init();
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["worker", stay] => work(*stay == STAY),
        ["turns", rounds, only @ ..] => take_turns(rounds.parse()?, only),
        ["alive", count] => keep_alive(count.parse()?),
        ["dial", rounds] => dial(rounds.parse()?),
        _ => Err("say `turns ROUNDS [off] [required] [bwrap]`, `alive COUNT` or `dial ROUNDS`".into()),
    }
}

/// What the trivial worker does: it says that it is there, and ends, or stays until it is killed.
fn work(stay: bool) -> Result<()> {
    io::stdout().write_all(b"x")?;
    io::stdout().flush()?;
    if stay {
        loop {
            thread::park();
        }
    }
    Ok(())
}

fn take_turns(rounds: usize, only: &[&str]) -> Result<()> {
    let program = env::current_exe()?;
    let bubblewrap = bubblewrap(&program)?;
    let all = ["off", "required", "bwrap"];
    let wanted = |how: &&str| (only.is_empty() || only.contains(how)) && (*how != "bwrap" || bubblewrap.is_some());
    let all: Vec<&str> = all.into_iter().filter(wanted).collect();
    for round in 0..rounds + WARM_UP {
        let mut samples = Vec::new();
        for turn in 0..all.len() {
            let how = all[(turn + round) % all.len()];
            let times = match (how, &bubblewrap) {
                ("off", _) => run_herd(spec(&program, Mode::Off, END, 0))?,
                ("bwrap", Some(args)) => run_other(args)?,
                _ => run_herd(spec(&program, Mode::Required, END, 0))?,
            };
            samples.push((how, times));
        }
        for (how, (ready, ended)) in samples.iter().filter(|_| round >= WARM_UP) {
            let [ready, ended] = [ready, ended].map(|time| time.as_secs_f64() * 1e6);
            println!(r#"{{"how":"{how}","ready_us":{ready:.1},"ended_us":{ended:.1}}}"#);
        }
    }
    Ok(())
}

fn keep_alive(count: u32) -> Result<()> {
    let program = env::current_exe()?;
    let start = |number: u32| -> Result<(Init, PipeReader)> {
        let mut spec = spec(&program, Mode::Required, STAY, number);
        let reader = pipe_into(&mut spec)?;
        Ok((Init::launch(spec)?, reader))
    };
    // What this host can give is found out by the first launch.
    let first = await_ready(start(count)?)?;
    first.kill();
    wait_for_end(&first)?;
    let began = Instant::now();
    let mut alive = VecDeque::new();
    let mut coming = VecDeque::new();
    for number in 0..count {
        coming.push_back(start(number)?);
        if coming.len() >= LAUNCHING {
            alive.extend(coming.pop_front().map(await_ready).transpose()?);
        }
    }
    for one in coming.drain(..) {
        alive.push_back(await_ready(one)?);
    }
    println!(r#"{{"alive":{count},"per_second":{:.1}}}"#, f64::from(count) / began.elapsed().as_secs_f64());
    // Init's own number is in its reports.
    for init in &alive {
        while !matches!(next_report(init)?, Some(Report::Ready { .. })) {}
    }
    let mut sizes: Vec<u64> = alive.iter().map(|init| private_bytes(init.pid())).collect::<Result<_>>()?;
    sizes.sort_unstable();
    println!(r#"{{"init_private_bytes":{}}}"#, sizes[sizes.len() / 2]);
    let began = Instant::now();
    for number in 0..count {
        let oldest = alive.pop_front().ok_or("there is none")?;
        oldest.kill();
        alive.push_back(await_ready(start(count + 1 + number)?)?);
        wait_for_end(&oldest)?;
    }
    println!(r#"{{"churn_per_second":{:.1}}}"#, f64::from(count) / began.elapsed().as_secs_f64());
    let began = Instant::now();
    alive.iter().for_each(Init::kill);
    alive.iter().try_for_each(wait_for_end)?;
    println!(r#"{{"ended_ms":{:.1}}}"#, began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn dial(rounds: usize) -> Result<()> {
    const PORT: u16 = 8000;
    let program = env::current_exe()?;
    let mut spec = spec(&program, Mode::Required, STAY, 0);
    spec.listen_ports.push(PORT);
    let reader = pipe_into(&mut spec)?;
    let init = await_ready((Init::launch(spec)?, reader))?;
    while !matches!(next_report(&init)?, Some(Report::Ready { .. })) {}
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    for round in 0..rounds + WARM_UP {
        let asked = Instant::now();
        init.request_sockets(1, false)?;
        let Some(Report::Sockets { sockets, .. }) = next_report(&init)? else {
            return Err("init made no socket".into());
        };
        let socket = sockets.first().ok_or("init made no socket")?;
        let began = Instant::now();
        if let Err(errno) = connect(socket, &address) {
            if errno != Errno::INPROGRESS {
                return Err(errno.into());
            }
            poll(&mut [PollFd::new(socket, PollFlags::OUT)], None)?;
        }
        let [dial, asked] = [began.elapsed(), asked.elapsed()].map(|took| took.as_secs_f64() * 1e6);
        socket_error(socket)??;
        if round >= WARM_UP {
            println!(r#"{{"dial_us":{dial:.1},"asked_us":{asked:.1}}}"#);
        }
    }
    init.kill();
    wait_for_end(&init)
}

/// How many are on their way at once: a daemon does not wait for one worker before it starts the next, either.
const LAUNCHING: usize = 4;

fn spec(program: &Path, mode: Mode, stay: &str, number: u32) -> Spec {
    let mut spec = Spec::new(program);
    spec.args = vec!["worker".into(), stay.into()];
    spec.env.push(("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()));
    spec.isolation = Isolation::new(mode);
    spec.isolation.files.read_only.push(program.to_owned());
    if geteuid().is_root() && mode != Mode::Off {
        spec.isolation.identity = Some(Identity { uid: FIRST_USER + number, gid: FIRST_USER + number });
    }
    spec
}

fn pipe_into(spec: &mut Spec) -> Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    spec.stdout = Some(writer.into());
    Ok(reader)
}

/// The times from launch to first byte, and from then to the end.
fn run_herd(mut spec: Spec) -> Result<(Duration, Duration)> {
    let reader = pipe_into(&mut spec)?;
    let began = Instant::now();
    let init = await_ready((Init::launch(spec)?, reader))?;
    let ready = began.elapsed();
    let began = Instant::now();
    wait_for_end(&init)?;
    let ended = began.elapsed();
    init.reap()?;
    Ok((ready, ended))
}

fn await_ready((init, mut reader): (Init, PipeReader)) -> Result<Init> {
    if reader.read(&mut [0])? == 1 {
        return Ok(init);
    }
    // It has ended before: the report says why.
    loop {
        match next_report(&init)? {
            Some(Report::Failed(failure)) => return Err(failure.into()),
            Some(_) => {}
            None => return Err("the worker ended and said nothing".into()),
        }
    }
}

fn wait_for_end(init: &Init) -> Result<()> {
    while next_report(init)?.is_some() {}
    Ok(())
}

fn next_report(init: &Init) -> Result<Option<Report>> {
    loop {
        match init.recv() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&init.as_fd(), PollFlags::IN)], None)?;
            }
            report => return Ok(report?),
        }
    }
}

fn run_other(args: &[OsString]) -> Result<(Duration, Duration)> {
    let (mut reader, writer) = io::pipe()?;
    let began = Instant::now();
    let mut child = Command::new(&args[0]).args(&args[1..]).env_clear().stdin(Stdio::null()).stdout(writer).spawn()?;
    if reader.read(&mut [0])? != 1 {
        return Err(format!("bubblewrap ended and the worker said nothing: {}", child.wait()?).into());
    }
    let ready = began.elapsed();
    let began = Instant::now();
    child.wait()?;
    Ok((ready, began.elapsed()))
}

/// The command line that asks bubblewrap for what the plan mounts; `None` if it is not installed.
fn bubblewrap(program: &Path) -> Result<Option<Vec<OsString>>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let Some(bwrap) = env::split_paths(&path).map(|directory| directory.join("bwrap")).find(|file| file.is_file())
    else {
        return Ok(None);
    };
    let mut args = vec![bwrap.into_os_string()];
    args.extend(["--unshare-all", "--die-with-parent", "--new-session", "--hostname", "herd"].map(OsString::from));
    args.extend(["--proc", "/proc", "--dev", "/dev"].map(OsString::from));
    let plan = Plan::new(&spec(program, Mode::Required, END, 0), Host::current()?)?;
    for step in plan.explain() {
        args.extend(option(&step)?.into_iter().map(OsString::from));
    }
    args.extend(["--cap-drop", "ALL", "--"].map(OsString::from));
    args.extend([program.as_os_str().to_owned(), "worker".into(), END.into()]);
    Ok(Some(args))
}

/// The option for one step. `/dev` and `/proc` have options of their own, which mount and mask much the same.
fn option(Explanation { step, detail, .. }: &Explanation) -> Result<Vec<String>> {
    let path = detail.split(", ").next().unwrap_or_default().to_owned();
    let place = PathBuf::from(&path);
    if place.starts_with("/dev") && path != "/dev/shm" {
        return Ok(Vec::new());
    }
    Ok(match *step {
        "system directory" => match fs::read_link(&place) {
            Ok(target) => vec!["--symlink".to_owned(), target.display().to_string(), path],
            Err(_) => vec!["--ro-bind-try".to_owned(), path.clone(), path],
        },
        "mount" => vec!["--ro-bind".to_owned(), path.clone(), path],
        "memory file system" => vec!["--tmpfs".to_owned(), path],
        "hide" if place.is_dir() => vec!["--tmpfs".to_owned(), path],
        "hide" if place.exists() => vec!["--ro-bind".to_owned(), "/dev/null".to_owned(), path],
        _ => Vec::new(),
    })
}

fn private_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let fields = text.lines().filter(|line| line.starts_with("Private_"));
    let kilobytes = fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(kilobytes.sum::<u64>() * 1024)
}
