//! By which names a worker sees a path of the host.

use std::path::{Path, PathBuf};

use super::files::readable;
use crate::Files;

/// One name by which a worker sees a path of the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sight {
    /// What is shown to the worker, as it was named: the path itself, or a directory above it.
    pub source: PathBuf,
    /// The worker's name for the path.
    pub path: PathBuf,
    /// Whether the worker may change what is there, as far as permissions allow.
    pub writable: bool,
    /// Whether every worker sees it, whatever is named for the sandbox.
    pub system: bool,
}

impl Files {
    /// By which names a worker sees a path of the host unless it is hidden, whatever symbolic links lead to it and to
    /// what is shown. None if the worker does not see it.
    #[must_use]
    pub fn sights(&self, path: &Path) -> Vec<Sight> {
        let real = real_path(path);
        let system = readable().into_iter().map(|path| (path.clone(), path, false, true));
        let read_only = self.read_only.iter().map(|path| (path.clone(), path.clone(), false, false));
        let writable = self.writable.iter().map(|path| (path.clone(), path.clone(), true, false));
        let mounts =
            self.mounts.iter().map(|mount| (mount.source.clone(), mount.target.clone(), mount.writable, false));
        let shown = read_only.chain(writable).chain(mounts).chain(system);
        shown
            .filter_map(|(source, target, writable, system)| {
                let inner = real.strip_prefix(real_path(&source)).ok()?;
                let path = if inner.as_os_str().is_empty() { target } else { target.join(inner) };
                Some(Sight { source, path, writable, system })
            })
            .collect()
    }
}

/// A path without symbolic links, as far as it exists; what does not exist yet is what it will be.
#[must_use]
pub fn real_path(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let (Ok(real), Ok(inner)) = (above.canonicalize(), path.strip_prefix(above)) {
            return if inner.as_os_str().is_empty() { real } else { real.join(inner) };
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::Mount;

    #[test]
    fn a_path_is_seen_by_each_name_of_what_shows_it() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().canonicalize().unwrap();
        let at = |name: &str| base.join(name);
        fs::create_dir_all(at("real/inner")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        let files = Files {
            read_only: vec![at("link"), at("other")],
            writable: vec![at("real")],
            mounts: vec![Mount { source: at("real/inner"), target: "/data".into(), writable: false }],
            ..Files::default()
        };
        // What does not exist yet is found where it will be.
        let mut seen: Vec<_> = files.sights(&at("link/inner/new")).into_iter().map(|sight| sight.path).collect();
        seen.sort();
        assert_eq!(seen, ["/data/new".into(), at("link/inner/new"), at("real/inner/new")]);
        let itself = files.sights(&at("real/inner"));
        assert!(itself.iter().any(|sight| sight.path == Path::new("/data")), "{itself:?}");
        assert_eq!(files.sights(&base), [], "what is shown is below it");
        let writable: Vec<_> = files.sights(&at("link")).into_iter().filter(|sight| sight.writable).collect();
        assert_eq!(writable.len(), 1, "{writable:?}");
    }

    #[test]
    fn what_every_worker_sees_is_among_it() {
        for path in ["/usr/nowhere/at-all", "/opt/herd/workspaces", "/etc/ssl/certs/x"] {
            let sights = Files::default().sights(Path::new(path));
            assert!(sights.iter().any(|sight| sight.system && !sight.writable), "{path}");
        }
        assert_eq!(Files::default().sights(Path::new("/srv/herd")), []);
    }
}
