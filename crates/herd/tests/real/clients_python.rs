//! The Python client: its package, its types, and its own tests in `clients/python`, which start daemons and break them.
//! All on the oldest and on the newest Python that there is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{daemon::HERD, provided};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/python").canonicalize().unwrap()
}

fn run(command: &mut Command) {
    let status = command.env("PYTHONDONTWRITEBYTECODE", "1").status().unwrap();
    assert!(status.success(), "{command:?}: {status}; see above");
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A new virtual environment with the client as its users install it. What the client needs is that of `tools`.
struct Installed {
    directory: TempDir,
}

impl Installed {
    fn with(tools: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let packages = directory.path().join("packages");
        // The wheel is made from the source distribution, so nothing is missing there.
        run(Command::new(tools).args(["-m", "build", "--no-isolation", "--outdir"]).arg(&packages).arg(sources()));
        let name = |suffix: &str| packages.join(format!("herd_client-{}{suffix}", env!("CARGO_PKG_VERSION")));
        let (wheel, archive) = (name("-py3-none-any.whl"), name(".tar.gz"));
        let built = || fs::read_dir(&packages).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        assert!(wheel.exists() && archive.exists() && built().len() == 2, "{:?}", built());

        let home = directory.path().join("home");
        run(Command::new(tools).args(["-m", "venv", "--without-pip"]).arg(&home));
        let installed = Self { directory };
        let python = installed.python();
        let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "--python"];
        let wheel = wheel.to_str().unwrap();
        run(Command::new(tools).args(pip).arg(&python).args(["install", "--no-index", "--no-deps", wheel]));
        let packages = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let own = PathBuf::from(output(Command::new(&python).args(["-c", packages])));
        fs::write(own.join("tools.pth"), output(Command::new(tools).args(["-c", packages]))).unwrap();
        // All that the client says it needs is there, in versions that it can do with.
        run(Command::new(&python).args(["-m", "pip", "--disable-pip-version-check", "check"]));
        let place = output(Command::new(&python).args(["-c", "import herd_client; print(herd_client.__file__)"]));
        assert!(Path::new(&place).starts_with(&own), "what is tested is what was installed, and not {place}");
        assert!(own.join("herd_client/py.typed").exists());
        installed
    }

    fn python(&self) -> PathBuf {
        self.directory.path().join("home/bin/python")
    }

    /// Runs the client's own tests.
    fn test(&self) {
        let mut tests = Command::new(self.python());
        tests.args(["-m", "pytest", "-q"]).current_dir(sources());
        tests.env("HERD", HERD).env("HERD_TEST_NODE_MODULES", provided("HERD_TEST_NODE_MODULES"));
        run(&mut tests);
    }
}

#[test]
fn the_python_client_does_what_it_says_on_the_oldest_python() {
    Installed::with(&provided("HERD_TEST_PYTHON_OLDEST")).test();
}

#[test]
fn the_python_client_does_what_it_says_on_the_newest_python() {
    Installed::with(&provided("HERD_TEST_PYTHON_NEWEST")).test();
}

#[test]
fn the_python_client_its_tests_and_its_examples_are_typed() {
    let tools = provided("HERD_TEST_PYTHON_NEWEST");
    let installed = Installed::with(&tools);
    let cache = installed.directory.path().join("mypy");
    // The sources are looked at, which configure the checkers.
    run(Command::new(&tools).args(["-m", "mypy", "--cache-dir"]).arg(cache).current_dir(sources()));
    let pyright = tools.with_file_name("pyright");
    let mut pyright = Command::new(pyright);
    let home = tools.parent().unwrap().parent().unwrap().join("pyright");
    pyright.env("PYRIGHT_PYTHON_CACHE_DIR", home).env("PYRIGHT_PYTHON_IGNORE_WARNINGS", "1");
    run(pyright.arg("--pythonpath").arg(&tools).current_dir(sources()));

    // And so is what users see of the package that is installed: a mistake of theirs is found.
    let program = installed.directory.path().join("program.py");
    let mypy = |text: &str| {
        fs::write(&program, text).unwrap();
        let mut mypy = Command::new(&tools);
        mypy.args(["-m", "mypy", "--strict", "--config-file=", "--cache-dir=/dev/null", "--python-executable"]);
        let output = mypy.arg(installed.python()).arg(&program).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let begin = "from herd_client import Herd\nwith Herd() as herd, herd.session() as session:\n    ";
    assert!(mypy(&format!("{begin}print(session.get('/', params={{'a': 1}}).text)\n")).starts_with("Success"));
    let wrong = mypy(&format!("{begin}session.get('/', parms={{'a': 1}})\n"));
    assert!(wrong.contains("Unexpected keyword argument \"parms\""), "{wrong}");
}
