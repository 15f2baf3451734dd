use std::{
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

/// How long a service manager that does not read may hold up the daemon.
const PATIENCE: Duration = Duration::from_millis(200);
/// The shortest time of a watchdog. In a quarter of it every gateway thread has to answer, however busy the host is.
const SHORTEST: Duration = Duration::from_millis(100);

/// The socket of a service manager. See sd_notify(3).
#[derive(Debug)]
pub(super) struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    pub(super) watchdog: Option<Watchdog>,
    /// Whether it was said that nobody is there.
    complained: AtomicBool,
}

/// Within which time the service manager wants to hear that all is well. See sd_watchdog_enabled(3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Watchdog(Duration);

impl Notifier {
    /// # Errors
    /// If the address is none, or if there can be no socket.
    pub(super) fn open(address: &OsStr, watchdog: Option<Watchdog>) -> anyhow::Result<Self> {
        // A name that begins with `@` is abstract; the kernel has a zero there. All else must not depend on where the
        // daemon happens to be.
        let address = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(address),
            _ => bail!(
                "NOTIFY_SOCKET is {address:?}, which is neither an absolute path nor the @NAME of an abstract socket; \
                 unset it, or have the service manager set it"
            ),
        };
        let address = address.context("NOTIFY_SOCKET names no socket that there can be; unset it")?;
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(socket)
        });
        let socket = socket.context("cannot make a socket for the service manager")?;
        Ok(Self { socket, address, watchdog, complained: AtomicBool::new(false) })
    }

    /// Sends lines. That nobody takes them is said once and ends nothing.
    pub(super) fn send(&self, lines: &str) {
        match self.socket.send_to_addr(lines.as_bytes(), &self.address) {
            Ok(_) => self.complained.store(false, Relaxed),
            Err(error) if !self.complained.swap(true, Relaxed) => {
                tracing::warn!(%error, "the service manager that NOTIFY_SOCKET names cannot be told anything");
            }
            Err(_) => {}
        }
    }
}

impl Watchdog {
    /// From `WATCHDOG_USEC` and `WATCHDOG_PID`. `None` if there is none for this process.
    ///
    /// # Errors
    /// If they are no numbers, or if the time is shorter than 100 milliseconds.
    pub(super) fn read(interval: Option<&OsStr>, pid: Option<&OsStr>) -> anyhow::Result<Option<Self>> {
        let Some(interval) = interval else { return Ok(None) };
        if pid.is_some_and(|pid| *pid != *process::id().to_string()) {
            return Ok(None);
        }
        let microseconds = interval.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
        let microseconds = microseconds.with_context(|| {
            format!(
                "WATCHDOG_USEC is {interval:?}, which is no number of microseconds; unset it, or correct WatchdogSec="
            )
        })?;
        let time = Duration::from_micros(microseconds);
        ensure!(
            time >= SHORTEST,
            "WATCHDOG_USEC is {interval:?}, which is shorter than {SHORTEST:?}: no daemon can answer that often for sure; \
             raise WatchdogSec=, to 30s for example"
        );
        Ok(Some(Self(time)))
    }

    /// How often to say so: sd_watchdog_enabled(3) recommends half of the time.
    pub(super) fn period(self) -> Duration {
        self.0 / 2
    }

    /// How long to wait for those who have to be well, so that what is said afterwards is still in time.
    pub(super) fn patience(self) -> Duration {
        self.0 / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<&OsStr> {
        Some(OsStr::new(text))
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_this_ones() {
        let own = process::id().to_string();
        let read = |pid| Watchdog::read(text("3000000"), pid).unwrap();
        assert_eq!(read(text("1")), None);
        assert_eq!(read(text(&own)).unwrap().period(), Duration::from_millis(1500));
        assert_eq!(read(None), read(text(&own)));
        assert_eq!(Watchdog::read(None, text(&own)).unwrap(), None);
    }

    #[test]
    fn a_watchdog_without_a_time_is_refused() {
        for time in ["", "0", "-1", "soon"] {
            let error = Watchdog::read(text(time), None).unwrap_err().to_string();
            assert!(error.contains(&format!("WATCHDOG_USEC is {time:?}")), "{error}");
        }
    }

    #[test]
    fn a_watchdog_that_nobody_can_satisfy_is_refused() {
        for time in ["1", "99999"] {
            let error = Watchdog::read(text(time), None).unwrap_err().to_string();
            assert!(error.contains(&format!("WATCHDOG_USEC is {time:?}, which is shorter than 100ms")), "{error}");
        }
        let shortest = Watchdog::read(text("100000"), None).unwrap().unwrap();
        assert_eq!(shortest.patience(), Duration::from_millis(25));
    }

    #[test]
    fn an_address_that_depends_on_the_current_directory_is_refused() {
        for address in ["notify", "./notify", "@", "vsock:2:1"] {
            let error = Notifier::open(OsStr::new(address), None).unwrap_err().to_string();
            assert!(error.contains(&format!("NOTIFY_SOCKET is {address:?}")), "{error}");
        }
        Notifier::open(OsStr::new("@herd"), None).unwrap();
        let long = format!("/{}", "n".repeat(200));
        assert!(Notifier::open(OsStr::new(&long), None).is_err());
    }
}
