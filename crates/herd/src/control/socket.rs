use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};

/// How many callers may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening control socket, with mode 0600. Dropping it removes its file, unless somebody else has made it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    /// The file's identity, so that a successor's socket at the same path is left alone. `None` if it is not ours.
    inode: Option<(u64, u64)>,
    listener: UnixListener,
}

/// The file that a control socket was made with.
#[derive(Clone, Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Whether it is where it was made, so that whoever connects there reaches the one who listens. While somebody
    /// listens, its inode is not given to another file.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
    }
}

/// Why there is no control socket.
#[derive(Debug)]
pub(crate) enum SocketError {
    /// A daemon answers there.
    Live,
    /// Something stands there that is no socket, and is not ours to remove.
    NoSocket,
    /// Its directory does not exist.
    NoDirectory,
    /// What the operating system said.
    Io(io::Error),
}

impl ControlSocket {
    /// Listens at `path`. A socket that a daemon left behind is replaced, one that is alive is not.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let directory = match path.parent().map(File::open) {
            Some(Ok(directory)) => directory,
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err(SocketError::NoDirectory),
            Some(Err(error)) => return Err(SocketError::Io(error)),
            None => return Err(SocketError::NoDirectory),
        };
        // Two daemons that find the same stale socket must not both remove it: the second would remove the first's new
        // one. The lock ends when `directory` is closed.
        flock(&directory, FlockOperation::LockExclusive)?;
        remove_stale(path)?;
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &address)?;
        // Nobody can connect before `listen`, so there is no moment at which others could.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(SocketError::Io)?;
        listen(&socket, BACKLOG)?;
        let metadata = fs::symlink_metadata(path).map_err(SocketError::Io)?;
        let inode = Some((metadata.dev(), metadata.ino()));
        Ok(Self { path: path.to_owned(), inode, listener: socket.into() })
    }

    /// Takes over one that a service manager has made, and will remove.
    ///
    /// # Errors
    /// If it is at no path, or others may connect to it.
    pub(crate) fn inherit(listener: UnixListener) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("cannot tell where the inherited control socket is")?;
        let path = address.as_pathname().context("the inherited control socket has no path; give it one")?.to_owned();
        let metadata = fs::symlink_metadata(&path);
        let metadata = metadata.with_context(|| format!("cannot see the control socket {}", path.display()))?;
        let mode = metadata.mode() & 0o777;
        ensure!(
            mode & 0o077 == 0,
            "the inherited control socket {} is open to others (mode {mode:o}); write SocketMode=0600 in its unit",
            path.display()
        );
        Ok(Self { path, inode: None, listener })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What tells the file that this made from any other; `None` if the file is the service manager's.
    pub(super) fn file(&self) -> Option<SocketFile> {
        Some(SocketFile { path: self.path.clone(), inode: self.inode? })
    }

    /// The listener, non-blocking.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.file().is_some_and(|file| file.is_there()) {
            // What is left behind is found to be stale by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::Io(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NoSocket);
    }
    if is_live(path)? {
        return Err(SocketError::Live);
    }
    fs::remove_file(path).map_err(SocketError::Io)
}

/// Whether somebody listens at `path`.
pub(crate) fn is_live(path: &Path) -> Result<bool, SocketError> {
    // Non-blocking, since connecting to a socket whose backlog is full would wait.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl From<Errno> for SocketError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl SocketError {
    /// Whether another user would be let in.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// One sentence for the operator.
    pub(crate) fn explain(self, path: &Path) -> anyhow::Error {
        let path = path.display();
        match self {
            Self::Live => anyhow::anyhow!(
                "a daemon already answers on the control socket {path}; stop it, or give this one another path with \
                 --control-socket or network.control_socket"
            ),
            Self::NoSocket => anyhow::anyhow!(
                "{path} exists and is no socket, so it is left alone; choose another control socket with \
                 --control-socket or network.control_socket"
            ),
            Self::NoDirectory => anyhow::anyhow!(
                "the directory of the control socket {path} does not exist; make it (mode 0700), or choose another \
                 path with --control-socket or network.control_socket"
            ),
            Self::Io(error) => anyhow::Error::new(error).context(format!(
                "cannot listen on the control socket {path}; choose another path with --control-socket or \
                 network.control_socket"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_socket_is_its_users_alone_and_goes_with_the_daemon() {
        let directory = directory();
        let path = directory.path().join("herd.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_refused() {
        let directory = directory();
        let path = directory.path().join("herd.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a plain listener leaves its file behind");
        let socket = ControlSocket::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::Live)));
        UnixStream::connect(socket.path()).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("herd.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::NoSocket)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_missing_directory_is_told_apart() {
        let directory = directory();
        let path = directory.path().join("missing/herd.sock");
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::NoDirectory)));
    }

    #[test]
    fn an_inherited_socket_stays_when_the_daemon_goes_and_is_closed_to_others() {
        let directory = directory();
        let path = directory.path().join("herd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let error = ControlSocket::inherit(listener.try_clone().unwrap()).unwrap_err().to_string();
        assert!(error.contains("is open to others (mode 660); write SocketMode=0600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let socket = ControlSocket::inherit(listener).unwrap();
        assert_eq!(socket.path(), path);
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let directory = directory();
        let path = directory.path().join("herd.sock");
        let first = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = ControlSocket::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(second.path()).unwrap();
    }
}
