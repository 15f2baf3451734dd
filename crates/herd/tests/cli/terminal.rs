//! A terminal for a program under test, and what it shows.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::client::PATIENCE;

/// A program at a terminal of its own, whose controlling terminal it is.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    /// Somebody's fingers.
    fingers: File,
    /// The program's side, which tells how the terminal is set.
    side: OwnedFd,
    before: Termios,
    shown: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// All that was written to it.
    pub(crate) written: Vec<u8>,
}

impl Terminal {
    /// Starts a program, whose environment is that of `like`, at a terminal of 80 by 24 characters.
    pub(crate) fn start(words: &[&str], like: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let fingers = openpt(flags).unwrap();
        grantpt(&fingers).unwrap();
        unlockpt(&fingers).unwrap();
        let name: CString = ptsname(&fingers, Vec::new()).unwrap();
        let open = || {
            let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
            let flags = OFlags::NOCTTY.bits().cast_signed();
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap()
        };
        let side: OwnedFd = open().into();
        resize_to(&side, 80, 24);
        let before = tcgetattr(&side).unwrap();
        // A session whose controlling terminal this is.
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(words).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let fingers = File::from(fingers);
        let mut eyes = fingers.try_clone().unwrap();
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = eyes.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = vt100::Parser::new(length(24), length(80), 0);
        Self { child, fingers, side, before, shown, screen, written: Vec::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.fingers.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        resize_to(&self.side, columns, rows);
        self.screen.screen_mut().set_size(length(rows), length(columns));
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub(crate) fn until(&mut self, wanted: impl Fn(&vt100::Screen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self.screen.screen()) {
            match self.shown.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.show(&bytes),
                Err(_) => panic!("it is not shown:\n{}", self.screen.screen().contents()),
            }
        }
    }

    /// Waits until the screen has this text on it.
    #[track_caller]
    pub(crate) fn until_shown(&mut self, text: &str) {
        self.until(|screen| screen.contents().contains(text));
    }

    pub(crate) fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits for the program's end, and looks at what it has left: the terminal has to be as it was.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the program does not end:\n{}", self.text());
            self.look(std::time::Duration::from_millis(10));
        };
        // What it wrote last may have to be read yet.
        while self.look(std::time::Duration::from_millis(200)) {}
        self.check_restored();
        status
    }

    /// Fails unless the terminal is as it was before.
    #[track_caller]
    pub(crate) fn check_restored(&self) {
        let now = tcgetattr(&self.side).unwrap();
        let parts = |mode: &Termios| (mode.input_modes, mode.output_modes, mode.control_modes, mode.local_modes);
        assert_eq!(parts(&now), parts(&self.before), "the terminal's mode");
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen(), "the other screen is left:\n{}", self.text());
        assert!(!screen.hide_cursor(), "the cursor is shown");
    }

    /// Whether keys are told as they are pressed.
    pub(crate) fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.side).unwrap();
        !now.local_modes.intersects(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ISIG)
    }

    fn look(&mut self, patience: std::time::Duration) -> bool {
        match self.shown.recv_timeout(patience) {
            Ok(bytes) => self.show(&bytes),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn show(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        self.screen.process(bytes);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize_to(side: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(side, size).unwrap();
}

fn length(count: u16) -> std::num::NonZero<u16> {
    std::num::NonZero::new(count).unwrap()
}
