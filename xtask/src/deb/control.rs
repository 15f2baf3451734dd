use std::{env, fs, process::Command};

use anyhow::{Context as _, Result};

use super::{template, text, tree::Tree};

/// Who is named as the one who looks after the package. `.invalid` is a domain that nobody has (RFC 2606).
const MAINTAINER: (&str, &str) = ("The herd maintainers", "maintainers@herd.invalid");

/// What dpkg is told about a package.
#[derive(Debug)]
pub(super) struct Control {
    architecture: String,
    version: String,
    /// The packages of the libraries that the program is linked with, as Debian names them.
    depends: String,
    /// In KiB, as policy counts it.
    size: u64,
}

impl Control {
    pub(super) fn of(tree: &Tree, version: &str) -> Result<Self> {
        let architecture = text(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
        let mut size = 0;
        for path in tree.installed()? {
            let metadata = fs::symlink_metadata(tree.root().join(&path))?;
            size += metadata.len().div_ceil(1024);
        }
        Ok(Self { architecture, version: version.to_owned(), depends: libraries(tree)?, size })
    }

    pub(super) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Into the tree, with the sums of its files.
    pub(super) fn write(&self, tree: &Tree) -> Result<()> {
        let fields = [
            ("{{version}}", self.version.clone()),
            ("{{architecture}}", self.architecture.clone()),
            ("{{maintainer}}", maintainer()),
            ("{{installed_size}}", self.size.to_string()),
            ("{{depends}}", self.depends.clone()),
        ];
        let control = fields.iter().fold(template("debian/control")?, |text, (name, value)| text.replace(name, value));
        // A program that is linked with nothing has an empty first item.
        tree.write("DEBIAN/control", &control.replace("Depends: , ", "Depends: "))?;
        let mut command = Command::new("md5sum");
        tree.write("DEBIAN/md5sums", &text(command.args(files(tree)?).current_dir(tree.root()))?)?;
        Ok(())
    }
}

/// As Debian's tools are told, else as above.
pub(super) fn maintainer() -> String {
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    format!("{} <{}>", variable("DEBFULLNAME", MAINTAINER.0), variable("DEBEMAIL", MAINTAINER.1))
}

fn files(tree: &Tree) -> Result<Vec<std::path::PathBuf>> {
    let mut files = tree.installed()?;
    files.retain(|path| !tree.root().join(path).is_symlink());
    Ok(files)
}

fn libraries(tree: &Tree) -> Result<String> {
    // It looks for a source package's control file in the directory where it runs.
    let directory = tree.root().join("DEBIAN/source");
    fs::create_dir_all(directory.join("debian"))?;
    fs::write(directory.join("debian/control"), "Source: herd\n\nPackage: herd\nArchitecture: any\n")?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.args(["-O", "-e"]).arg(tree.program()).current_dir(&directory);
    let said = text(&mut command);
    fs::remove_dir_all(&directory).context("cannot tidy up")?;
    let said = said?;
    let depends = said.trim().strip_prefix("shlibs:Depends=").unwrap_or_default();
    Ok(depends.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_has_a_place_for_every_field() {
        let template = template("debian/control").unwrap();
        for name in ["version", "architecture", "maintainer", "installed_size", "depends"] {
            assert!(template.contains(&format!("{{{{{name}}}}}")), "{name}");
        }
    }
}
