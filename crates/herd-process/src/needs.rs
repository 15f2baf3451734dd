//! What a command needs to see of the host besides what is shown to every worker: itself, and what it names.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use herd_sandbox::{Files, Spec, real_path};

/// What belongs to a program in `PREFIX/bin`, by its name in `PREFIX`: a runtime that was installed by itself, or a
/// virtual environment, is of no use without.
const RUNTIME: [&str; 4] = ["lib", "lib64", "libexec", "pyvenv.cfg"];

/// The program's file with what was installed with it, the working directory, and the files that arguments name.
///
/// A directory is shown only where the operator says so: one that an argument names may hold much more than is meant.
pub(crate) fn of_command(spec: &Spec, program: Option<PathBuf>) -> Vec<PathBuf> {
    let mut needs = Vec::new();
    if let Some(program) = program {
        for name in [program.clone(), real_path(&program)] {
            needs.extend(runtime(&name));
        }
        needs.push(program);
    }
    needs.extend(spec.cwd.clone());
    needs.extend(spec.args.iter().filter_map(|arg| named_file(arg)));
    needs
}

fn runtime(program: &Path) -> Vec<PathBuf> {
    let directory = program.parent().filter(|directory| directory.ends_with("bin"));
    let Some(prefix) = directory.and_then(Path::parent).filter(|prefix| prefix.parent().is_some()) else {
        return Vec::new();
    };
    RUNTIME.iter().map(|name| prefix.join(name)).filter(|path| path.exists()).collect()
}

/// What of an argument may be a path: all of it, or what it gives to an option, as in `--config=/srv/app.toml`. Files that
/// are named in this way by an absolute path are shown to workers.
#[must_use]
pub fn path_in(argument: &OsStr) -> &Path {
    let bytes = argument.as_bytes();
    let value = bytes.iter().position(|byte| *byte == b'=').filter(|_| bytes.starts_with(b"-"));
    Path::new(value.map_or(argument, |at| OsStr::from_bytes(&bytes[at + 1..])))
}

/// The file of the host that an argument names.
fn named_file(argument: &OsStr) -> Option<PathBuf> {
    let path = path_in(argument);
    let is_own = Files::OWN.iter().any(|own| path.starts_with(own));
    // A name with `..` in it is not the one by which the worker would find it in another root.
    let is_plain = path.is_absolute() && path.components().all(|part| part != std::path::Component::ParentDir);
    (is_plain && !is_own && path.is_file()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn spec(args: &[&str]) -> Spec {
        let mut spec = Spec::new("program");
        spec.args = args.iter().map(Into::into).collect();
        spec
    }

    #[test]
    fn files_that_arguments_name_are_needed_and_directories_are_not() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("server.py");
        fs::write(&file, "").expect("a file");
        let name = file.to_str().expect("text");
        let directory = place.path().to_str().expect("text");
        assert_eq!(of_command(&spec(&[name]), None), [file.as_path()]);
        assert_eq!(of_command(&spec(&["-x", &format!("--config={name}")]), None), [file.as_path()]);
        let others = [directory, "server.py", "/nowhere/server.py", "/etc/passwd", "/proc/self/status", "/dev/null"];
        assert_eq!(of_command(&spec(&others), None), Vec::<PathBuf>::new());
        assert_eq!(
            of_command(&spec(&[&format!("{directory}/../x/server.py"), &format!("a={name}")]), None),
            [""; 0].map(PathBuf::from)
        );
    }

    #[test]
    fn a_runtime_of_its_own_is_needed_with_its_program() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().canonicalize().expect("it is there").join(name);
        for directory in ["base/bin", "base/lib", "base/share", "venv/bin", "venv/lib64"] {
            fs::create_dir_all(at(directory)).expect("a directory");
        }
        fs::write(at("base/bin/python3"), "").expect("a file");
        fs::write(at("venv/pyvenv.cfg"), "").expect("a file");
        std::os::unix::fs::symlink(at("base/bin/python3"), at("venv/bin/python3")).expect("a link");
        let mut needs = of_command(&spec(&[]), Some(at("venv/bin/python3")));
        needs.sort();
        assert_eq!(needs, [at("base/lib"), at("venv/bin/python3"), at("venv/lib64"), at("venv/pyvenv.cfg")]);
        let alone = at("base/share/tool");
        assert_eq!(of_command(&spec(&[]), Some(alone.clone())), [alone], "it is not in a bin directory");
    }
}
