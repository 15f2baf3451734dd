use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{anyhow, bail};

/// Far above any key or token: what is longer is some other file.
const MAX_LEN: u64 = 64 * 1024;

/// The content of a file that holds a secret. What goes wrong is told without a byte of it.
///
/// # Errors
/// If the file cannot be read, is empty or far too long, or is no regular file: a pipe could hold the daemon up.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let metadata = fs::metadata(path).map_err(|error| {
        anyhow!("cannot read {shown}: {error}; name a file that exists and that herd's user may read")
    })?;
    if !metadata.is_file() {
        bail!("{shown} is no regular file; a secret is read from a file that is there again at the next reload");
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut content));
    read.map_err(|error| anyhow!("cannot read {shown}: {error}; let herd's user (and nobody else) read it"))?;
    if content.len() as u64 > MAX_LEN {
        bail!("{shown} has more than {} KiB, so it is hardly the file that was meant", MAX_LEN / 1024);
    }
    if content.iter().all(u8::is_ascii_whitespace) {
        bail!("{shown} is empty; write the secret into it, or name another file");
    }
    Ok(content)
}

/// What to do about a secret that others may read; `None` if they may not.
pub(crate) fn exposed(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let mode = metadata.permissions().mode() & 0o7777;
    let deed = match metadata.mode() & 0o006 {
        0o006 => "read and change",
        0o004 => "read",
        0o002 => "change",
        _ => return None,
    };
    let shown = path.display();
    Some(format!("every user of this host can {deed} {shown} (mode {mode:o}): run `chmod o= {shown}`"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_no_secret_is_refused_with_its_path_and_without_its_content() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("secret");
        let refused = |path: &Path| {
            let said = format!("{:#}", read(path).unwrap_err());
            assert!(said.contains(path.to_str().unwrap()), "{said}");
            said
        };
        assert!(refused(&path).contains("No such file"));
        fs::write(&path, " \n\n").unwrap();
        assert!(refused(&path).contains("is empty"));
        fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(refused(&path).contains("more than 64 KiB"));
        assert!(refused(directory.path()).contains("no regular file"));
        fs::write(&path, "content\n").unwrap();
        assert_eq!(read(&path).unwrap(), b"content\n");
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_pointed_out() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(exposed(&path), None);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let said = exposed(&path).unwrap();
        assert!(said.contains("(mode 644)") && said.contains("chmod o="), "{said}");
        for (mode, deed) in [(0o644, "can read /"), (0o642, "can change /"), (0o666, "can read and change /")] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let said = exposed(&path).unwrap();
            assert!(said.contains(deed), "{said}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o641)).unwrap();
        assert_eq!(exposed(&path), None, "to run it is to read nothing");
    }
}
