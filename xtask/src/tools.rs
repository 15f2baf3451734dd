//! Where what tests need is kept that Debian has in no package, or in one that is not to be installed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::target_directory;

/// The directory of test tools, held against everybody else who would set them up at the same time.
#[derive(Debug)]
pub(crate) struct Tools {
    directory: PathBuf,
    _lock: File,
}

impl Tools {
    /// Waits until nobody else has it.
    pub(crate) fn lock() -> Result<Self> {
        let directory = target_directory()?.join("test-tools");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join("lock");
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
        let lock = lock.with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}
