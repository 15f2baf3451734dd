//! Makes the control socket's file anew when somebody has removed it: without it nobody reaches the daemon any more, and
//! everybody takes it for gone.

use std::{future::pending, io, path::Path, sync::Arc, time::Duration};

use tokio::{net::UnixListener, sync::watch, task::spawn_blocking, time::sleep};

use super::{
    runtime_dir::RuntimeDir,
    socket::{ControlSocket, SocketError},
};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(3);

/// Looks after the socket for ever, and hands on the listener of each that was made anew. What the service manager has
/// made is left to it.
pub(super) async fn keep(mut socket: ControlSocket, listeners: watch::Sender<Arc<UnixListener>>) {
    let mut complaint = String::new();
    while let Some(file) = socket.file() {
        sleep(INTERVAL).await;
        let path = file.path.clone();
        // What the file system, or somebody who has locked the directory, keeps waiting, is not the daemon.
        let looked = spawn_blocking(move || if file.is_there() { Ok(None) } else { anew(&file.path).map(Some) });
        let made = match looked.await {
            Ok(Ok(None)) => {
                complaint.clear();
                continue;
            }
            Ok(Ok(Some(made))) => listen(&made).map(|listener| (made, listener)).map_err(SocketError::Io),
            Ok(Err(error)) => Err(error),
            // The daemon ends.
            Err(_) => break,
        };
        match made {
            Ok((made, listener)) => {
                let control = path.display();
                tracing::warn!(%control, "the control socket's file was not there any more; it was made anew");
                listeners.send_replace(listener.into());
                socket = made;
            }
            Err(error) => {
                let error = format!("{:#}", error.explain(&path));
                if error != complaint {
                    tracing::warn!(error, "the control socket's file is gone, so that no command reaches this daemon");
                    complaint = error;
                }
            }
        }
    }
    pending::<()>().await;
}

fn listen(socket: &ControlSocket) -> io::Result<UnixListener> {
    UnixListener::from_std(socket.listener()?)
}

/// The socket at the same path, with its directory if that is the daemon's own. A live one of somebody else is left.
fn anew(path: &Path) -> Result<ControlSocket, SocketError> {
    match ControlSocket::bind(path) {
        Err(SocketError::NoDirectory) => {
            let directory = RuntimeDir::of_daemons();
            if path.parent() != Some(directory.path()) || directory.prepare().is_err() {
                return Err(SocketError::NoDirectory);
            }
            ControlSocket::bind(path)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::{net::UnixStream, select};

    use super::*;

    /// Keeps a socket until `done` is.
    async fn while_kept(path: &Path, done: impl Future<Output = ()>) {
        let socket = ControlSocket::bind(path).unwrap();
        let (listeners, mut latest) = watch::channel(Arc::new(listen(&socket).unwrap()));
        let accept = async {
            loop {
                let listener = Arc::clone(&latest.borrow_and_update());
                select! {
                    accepted = listener.accept() => drop(accepted.unwrap()),
                    Ok(()) = latest.changed() => {}
                }
            }
        };
        select! {
            () = keep(socket, listeners) => {}
            () = accept => {}
            () = done => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_removed_is_made_anew_and_one_of_another_daemon_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("herd.sock");
        while_kept(&path, async {
            fs::remove_file(&path).unwrap();
            while UnixStream::connect(&path).await.is_err() {
                sleep(INTERVAL).await;
            }
            fs::remove_file(&path).unwrap();
            let other = ControlSocket::bind(&path).unwrap();
            let listener = listen(&other).unwrap();
            sleep(3 * INTERVAL).await;
            assert!(other.file().unwrap().is_there(), "it is live");
            let (_, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
            accepted.unwrap();
            drop((other, listener));
            while UnixStream::connect(&path).await.is_err() {
                sleep(INTERVAL).await;
            }
        })
        .await;
        assert!(!path.exists(), "the one made last goes with the daemon");
    }
}
