//! The terminal that a command runs in: it is changed for a while, and always given back as it was.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    panic,
    sync::{Mutex, Once, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, getpgid, getpgrp, getpid, getsid, kill_current_process_group, kill_process},
    termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr},
};
use tokio::{
    select,
    signal::unix::{Signal as Signals, SignalKind, signal},
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

/// How many pieces of input may wait to be taken.
const PIECES: usize = 4;
/// How much is read at once.
const PIECE: usize = 16 * 1024;
/// How long somebody who goes on looks whether it was to end.
const MOMENT: Duration = Duration::from_millis(20);

/// What there is to undo. It is the process's: a terminal has one state, and a panic asks nobody for a value.
static CHANGED: Mutex<Option<Changed>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// A terminal as it was, and what leads out of what it shows now.
#[derive(Debug)]
struct Changed {
    mode: Termios,
    leave: &'static str,
}

/// The terminal of standard input and output in raw mode (cfmakeraw(3)): each key is told as it is pressed, Ctrl-C too.
/// Dropping it gives the terminal back as it was; so does a panic, before it says anything.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    enter: &'static str,
    leave: &'static str,
}

impl RawTerminal {
    /// Whether standard input and output are a terminal each.
    pub(crate) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Changes the terminal, and writes `enter` to it; `leave` is written when it is given back.
    ///
    /// # Errors
    /// If standard input is no terminal, or the terminal is gone.
    pub(crate) fn enter(enter: &'static str, leave: &'static str) -> io::Result<Self> {
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                report(panic);
            }));
        });
        let terminal = Self { enter, leave };
        terminal.change()?;
        Ok(terminal)
    }

    fn change(&self) -> io::Result<()> {
        let mode = tcgetattr(io::stdin())?;
        let mut raw = mode.clone();
        raw.make_raw();
        let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.is_none() {
            *changed = Some(Changed { mode, leave: self.leave });
        }
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        drop(changed);
        write(self.enter)
    }

    /// Gives the terminal back and stops this process, as Ctrl-Z does where nobody takes the key; changes the terminal
    /// again when the process is let go on. `group`: with all processes of its group, which the key would stop.
    ///
    /// Returns whether the process was told to end meanwhile. Without a shell that could let it go on, nothing stops.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub(crate) async fn suspend(&self, group: bool, endings: &mut Endings) -> io::Result<Option<i32>> {
        if is_orphaned() {
            return Ok(None);
        }
        restore();
        // SIGTSTP is caught, so that it would not stop.
        if group {
            kill_current_process_group(Signal::STOP)?;
        } else {
            kill_process(getpid(), Signal::STOP)?;
        }
        // `kill %1` lets a stopped process go on, so that it can end: then the terminal is somebody else's already.
        if let Ok(ending) = timeout(MOMENT, endings.next()).await {
            return Ok(Some(ending));
        }
        self.change()?;
        Ok(None)
    }

    /// Changes the terminal again, after something else that stopped this process.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub(crate) fn resume(&self) -> io::Result<()> {
        restore();
        self.change()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was, if it was changed.
fn restore() {
    let changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Changed { mode, leave }) = changed {
        // If it is gone, it needs nothing.
        let _ = write(leave);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &mode);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// How large the terminal of standard output is, at least one by one.
pub(crate) fn size() -> (u16, u16) {
    // A terminal that says nothing has the size that terminals once had.
    let Winsize { ws_col, ws_row, .. } = match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => size,
        _ => Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 },
    };
    (ws_col, ws_row)
}

/// Whether nobody is there to let this process go on if it stops (setpgid(2), "orphaned process groups"). The kernel would
/// not stop it either.
fn is_orphaned() -> bool {
    let (group, session) = (getpgrp(), getsid(None).ok());
    let mut next = parent(getpid());
    while let Some(pid) = next {
        if getsid(Some(pid)).ok() != session {
            return true;
        }
        if getpgid(Some(pid)).ok() != Some(group) {
            return false;
        }
        next = parent(pid);
    }
    true
}

/// From proc_pid_stat(5): the name before it may hold spaces and parentheses.
fn parent(of: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", of.as_raw_nonzero())).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Pid::from_raw(rest.split(' ').nth(1)?.parse().ok()?)
}

/// The signals that end a program.
#[derive(Debug)]
pub(crate) struct Endings([(i32, Signals); 3]);

impl Endings {
    /// From now on they do nothing by themselves.
    ///
    /// # Errors
    /// If they cannot be caught.
    pub(crate) fn catch() -> io::Result<Self> {
        let caught = |kind: SignalKind| Ok::<_, io::Error>((kind.as_raw_value(), signal(kind)?));
        let all = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        Ok(Self([caught(all[0])?, caught(all[1])?, caught(all[2])?]))
    }

    /// The next one.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> i32 {
        let [(first, one), (second, two), (third, three)] = &mut self.0;
        select! {
            _ = one.recv() => *first,
            _ = two.recv() => *second,
            _ = three.recv() => *third,
        }
    }
}

/// Reads standard input in a thread of its own, piece by piece and no further ahead than a few of them. `None` is the end
/// of the input. Nobody waits for the thread: it ends with the process.
///
/// An event loop does not do: a file would not take part, and a terminal that does not block would not block for the shell
/// either.
pub(crate) fn input() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = channel(PIECES);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut piece = vec![0; PIECE];
        loop {
            let read = match stdin.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => Ok(piece[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_over = read.is_err();
            if sender.blocking_send(read).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}
