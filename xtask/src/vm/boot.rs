use std::{
    collections::VecDeque,
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Errand, Machine, Verdict};
use crate::progress;

/// How long the machine may take to boot and to power off. Under emulation it is about 15 s on an idle machine.
const ALLOWANCE: Duration = Duration::from_secs(120);

/// Devices that the machine has and nobody uses. Their drivers would take a third of the time that it needs to boot.
const UNUSED_DRIVERS: &str = "kvm,kvm_amd,kvm_intel,libata,scsi_mod,aesni_intel,ghash_clmulni_intel,sha512_ssse3,\
                              crc32_pclmul,crc32c_intel,psmouse,pcspkr,drm";

/// How timeout(1) ends if it had to kill, and virtme-ng with it.
const TOO_LATE: i32 = 137;

/// How much of the console is shown if the machine fails.
const CONSOLE_LINES: usize = 80;

impl Machine {
    /// Boots, does the errand within `limit`, and powers off. What the errand prints is passed on as it comes.
    ///
    /// # Errors
    /// If the machine ends, or its time does, before the errand is done. The error has the end of the console's output.
    pub(crate) fn send(&self, errand: &Errand, limit: Duration) -> Result<Verdict> {
        let boot = Boot::prepare(&self.boots, errand)?;
        progress("boots the virtual machine");
        let mut vng = self.start(&boot, limit)?;
        let console = Console::read(vng.stderr.take().context("virtme-ng has no standard error")?);
        let lines = lines(vng.stdout.take().context("virtme-ng has no standard output")?);
        let end = Instant::now() + ALLOWANCE + limit;
        let (verdict, in_time) = relay(&lines, &boot.mark, end)?;
        if !in_time {
            boot.kill(&mut vng)?;
        }
        let status = vng.wait().context("cannot wait for virtme-ng")?;
        let console = console.end();
        let Some(verdict) = verdict else {
            let what = match status.code() {
                _ if !in_time => format!("was killed after {} s", (ALLOWANCE + limit).as_secs()),
                Some(TOO_LATE) => format!("stopped after {} s", limit.as_secs()),
                _ => format!("ended ({status})"),
            };
            bail!("the virtual machine {what} before it was done; the last that it said was:\n{console}");
        };
        ensure!(status.code() == Some(0), "the virtual machine was done and did not end well ({status}):\n{console}");
        Ok(verdict)
    }

    fn start(&self, boot: &Boot, limit: Duration) -> Result<Child> {
        // Inside there is a limit too, and it is the shorter one: then a machine whose starter was killed ends anyway.
        let line = format!("exec timeout --signal=KILL {} ./{PROGRAM} {GUEST} {ERRAND}", limit.as_secs());
        let mut vng = Command::new(self.programs.join("vng"));
        vng.args(["--disable-kvm", "--force-9p", "--user", "root", "--cpus", "2", "--memory", "2G", "--verbose"])
            .arg("--append=loglevel=5")
            .arg(format!("--append=module_blacklist={UNUSED_DRIVERS}"))
            .arg(format!("--qemu-opts=-pidfile {PID_FILE}"))
            .arg("--run")
            .arg(&self.kernel.image)
            .args(["--", &line]);
        // It is for Python's virtual environment to say what is imported, and for virtme-ng where its parts are.
        vng.env("PATH", self.path()?).env_remove("PYTHONPATH").env_remove("PYTHONHOME").env("HOME", &boot.directory);
        vng.current_dir(&boot.directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        vng.spawn().context("cannot start virtme-ng")
    }

    fn path(&self) -> Result<OsString> {
        let path = env::var_os("PATH").unwrap_or_default();
        let directories = [self.programs.clone()].into_iter().chain(env::split_paths(&path));
        env::join_paths(directories.chain(["/usr/sbin".into(), "/sbin".into()])).context("PATH has odd characters")
    }
}

/// The subcommand that does an errand.
const GUEST: &str = "guest";

const PROGRAM: &str = "xtask";
const ERRAND: &str = "errand.json";
const PID_FILE: &str = "qemu.pid";

/// What one boot needs, in a directory that is gone when the machine is.
struct Boot {
    directory: PathBuf,
    mark: String,
}

impl Boot {
    fn prepare(boots: &Path, errand: &Errand) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let mark = format!("herd-verdict-{}-{}:", process::id(), now.as_nanos());
        sweep(boots);
        let directory = boots.join(process::id().to_string());
        let boot = Self { directory, mark };
        let write = || {
            fs::create_dir_all(&boot.directory)?;
            // This very program: the file that it was started from may have been built anew meanwhile.
            fs::copy("/proc/self/exe", boot.directory.join(PROGRAM))?;
            let file = File::create(boot.directory.join(ERRAND))?;
            serde_json::to_writer(file, &(&boot.mark, errand)).map_err(io::Error::from)
        };
        write().with_context(|| format!("cannot write into {}", boot.directory.display()))?;
        Ok(boot)
    }

    /// Ends QEMU, and with it virtme-ng, which waits for it.
    fn kill(&self, vng: &mut Child) -> Result<()> {
        let path = self.directory.join(PID_FILE);
        let pid = fs::read_to_string(&path).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        match pid {
            // Its parent waits for it and was not waited for, so the number is still its own.
            Some(pid) => kill_process(pid, Signal::KILL).context("cannot kill QEMU"),
            None => vng.kill().context("cannot kill virtme-ng"),
        }
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // What stays is removed with the target directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Removes what boots left whose starters were killed.
fn sweep(boots: &Path) {
    let Ok(entries) = fs::read_dir(boots) else { return };
    for entry in entries.flatten().filter(|entry| !Path::new("/proc").join(entry.file_name()).exists()) {
        // It takes room and does no other harm.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Passes lines on until there are no more, except the one with the verdict. False if the time was up before.
#[expect(clippy::print_stdout, reason = "this is a command for people")]
fn relay(lines: &Receiver<String>, mark: &str, end: Instant) -> Result<(Option<Verdict>, bool)> {
    let mut verdict = None;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.split_once(mark) {
                Some((before, text)) => {
                    if !before.is_empty() {
                        println!("{before}");
                    }
                    verdict = Some(serde_json::from_str(text).context("the verdict is garbled")?);
                }
                None => println!("{line}"),
            },
            Err(RecvTimeoutError::Disconnected) => return Ok((verdict, true)),
            Err(RecvTimeoutError::Timeout) => return Ok((verdict, false)),
        }
    }
}

/// Reads lines until there are no more. Programs may print what is no text.
fn read_lines(from: impl Read, mut take: impl FnMut(String) -> bool) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line);
        if !take(text.trim_end_matches(['\r', '\n']).to_owned()) {
            return;
        }
        line.clear();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || read_lines(from, |line| sender.send(line).is_ok()));
    receiver
}

/// What the kernel says, and virtme-ng if something is wrong with it.
struct Console {
    thread: thread::JoinHandle<VecDeque<String>>,
}

impl Console {
    fn read(from: impl Read + Send + 'static) -> Self {
        let thread = thread::spawn(move || {
            let mut last = VecDeque::with_capacity(CONSOLE_LINES);
            read_lines(from, |line| {
                if last.len() == CONSOLE_LINES {
                    last.pop_front();
                }
                last.push_back(line);
                true
            });
            last
        });
        Self { thread }
    }

    /// Its last lines. Everybody who could write any must have ended.
    fn end(self) -> String {
        let last = self.thread.join().unwrap_or_default();
        last.iter().map(|line| format!("    {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "herd-verdict-1-2:";

    fn relayed(lines: &[&str]) -> Result<(Option<Verdict>, bool)> {
        let (sender, receiver) = mpsc::channel();
        lines.iter().for_each(|line| sender.send((*line).to_owned()).unwrap());
        drop(sender);
        relay(&receiver, MARK, Instant::now())
    }

    #[test]
    fn a_verdict_counts_only_with_the_mark_of_its_boot() {
        let line = |mark: &str| format!(r#"no newline before{mark}{{"Tests":{{"passed":3,"failed":1}}}}"#);
        let (verdict, _) = relayed(&["some test", &line(MARK), "more"]).unwrap();
        assert_eq!(verdict, Some(Verdict::Tests { passed: 3, failed: 1 }));
        let (verdict, _) = relayed(&["some test", &line("herd-verdict-1-1:")]).unwrap();
        assert_eq!(verdict, None);
    }

    #[test]
    fn half_a_verdict_is_an_error() {
        assert!(relayed(&[&format!(r#"{MARK}{{"Tests":{{"passed":3"#)]).is_err());
    }

    #[test]
    fn a_machine_that_says_nothing_is_waited_for_until_its_time_is_up() {
        let (_sender, receiver) = mpsc::channel();
        let (verdict, in_time) = relay(&receiver, MARK, Instant::now()).unwrap();
        assert_eq!((verdict, in_time), (None, false));
    }

    #[test]
    fn output_that_is_no_text_is_passed_on_too() {
        let mut lines = Vec::new();
        read_lines(&b"one\r\n\xff two\nthree"[..], |line| {
            lines.push(line);
            true
        });
        assert_eq!(lines, ["one", "\u{fffd} two", "three"]);
    }

    #[test]
    fn only_what_a_killed_boot_left_is_swept() {
        let boots = env::temp_dir().join(format!("herd-boots-{}", process::id()));
        // No process has this number: it is above the highest that Linux can be told to give, which proc(5) names.
        let (killed, alive) = (boots.join("4194305"), boots.join(process::id().to_string()));
        for directory in [&killed, &alive] {
            fs::create_dir_all(directory).unwrap();
        }
        sweep(&boots);
        assert_eq!((killed.exists(), alive.exists()), (false, true));
        fs::remove_dir_all(&boots).unwrap();
    }
}
