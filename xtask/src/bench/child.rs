//! Programs that the benchmark starts. None of them outlives it, however it ends.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

use super::{accounting, cores::Cores};

/// How long a program may take to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A running program, ended when this is dropped. Should the benchmark be killed, the kernel ends it.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

/// How to start a program.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a Path,
    pub(crate) args: Vec<OsString>,
    pub(crate) cores: &'a Cores,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ExecOptions {
    /// Stay on these cores
    #[arg(long)]
    cores: Cores,
    /// End when this process does, which must be the parent
    #[arg(long)]
    parent: u32,
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Becomes the command. It comes between the benchmark and each program, because it is the program itself that must ask
/// for its death with its parent (prctl(2), `PR_SET_PDEATHSIG`), and its children are to inherit its cores.
pub(crate) fn exec(options: &ExecOptions) -> Result<()> {
    options.cores.pin_this_thread()?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    ensure!(parent == Some(options.parent), "the benchmark has ended already");
    let (program, args) = options.command.split_first().context("there is no command")?;
    Err(Command::new(program).args(args).exec())
        .with_context(|| format!("cannot start {}", Path::new(program).display()))
}

impl Program<'_> {
    /// Starts it with its output in a file of `directory`.
    pub(crate) fn start(self, directory: &Path) -> Result<Running> {
        self.spawn(directory, None)
    }

    /// Starts it and returns the first line that it prints.
    pub(crate) fn start_and_read_line(self, directory: &Path) -> Result<(Running, String)> {
        let mut running = self.spawn(directory, Some(Stdio::piped()))?;
        let stdout = running.child.stdout.take().context("its output is not piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{} has ended at once: {}", running.name, running.last_words());
        Ok((running, line.trim_end().to_owned()))
    }

    /// Runs it to its end, which must be a success, and returns what it prints.
    pub(crate) fn output(self, directory: &Path) -> Result<String> {
        let mut running = self.spawn(directory, Some(Stdio::piped()))?;
        let mut text = String::new();
        running.child.stdout.take().context("its output is not piped")?.read_to_string(&mut text)?;
        let status = running.child.wait()?;
        ensure!(status.success(), "{} has ended with {status}: {text}{}", running.name, running.last_words());
        Ok(text)
    }

    fn spawn(self, directory: &Path, stdout: Option<Stdio>) -> Result<Running> {
        let log = directory.join(format!("{}.log", self.name));
        let file = File::options().create(true).append(true).open(&log)?;
        // The path is that of the running file, even if it was replaced by a newer build.
        let child = Command::new("/proc/self/exe")
            .args(["bench-exec", "--cores", &self.cores.to_string(), "--parent", &std::process::id().to_string(), "--"])
            .arg(self.path)
            .args(self.args)
            .stdin(Stdio::null())
            .stdout(stdout.map_or_else(|| file.try_clone().map(Stdio::from), Ok)?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        Ok(Running { name: self.name.to_owned(), child, log })
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `probe` again and again until it has an answer.
    ///
    /// It is an error if that takes too long or if the program ends.
    pub(crate) fn wait_for<T>(&mut self, what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} has ended with {status}: {}", self.name, self.last_words());
            }
            let last = match probe() {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => anyhow!("not yet"),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(last.context(format!("waited for {what} of {}: {}", self.name, self.last_words())));
            }
            pause(Duration::from_millis(5));
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    fn stop(&mut self) {
        // Some of them have children who would outlive a parent that is killed.
        let family = accounting::descendants(self.pid());
        signal(self.pid(), Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause(Duration::from_millis(5));
        }
        for pid in family.into_iter().chain([self.pid()]) {
            signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Lets time pass, where there is no event that could be waited for: another program's progress is polled.
pub(crate) fn pause(time: Duration) {
    thread::park_timeout(time);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended in the meantime, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}
