//! Taking more than its share. Each of these stops by itself a little above the limit that it is run with.

use std::{
    fs::{self, File},
    io::Write,
    process::{Child, Command, Stdio},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    attempt::{Attempt, Refusal},
    stage::{OPEN_FILES, PROCESSES, TMP_LIMIT},
    target::Target,
};

pub(crate) fn fill_the_temporary_directory(_: &Target) -> Attempt {
    fill("/tmp")
}

pub(crate) fn fill_the_shared_memory(_: &Target) -> Attempt {
    fill("/dev/shm")
}

fn fill(directory: &str) -> Attempt {
    let path = format!("{directory}/herd-fill-{}", std::process::id());
    let file = File::create_new(&path)?;
    let chunk = vec![1; 1 << 16];
    let result = (0..2 * TMP_LIMIT / chunk.len() as u64).try_for_each(|_| (&file).write_all(&chunk));
    let length = file.metadata()?.len();
    fs::remove_file(&path)?;
    result?;
    Ok(format!("{length} bytes"))
}

/// As many empty files as the directory's size allows, at a quarter of a KiB each: far more than a program needs.
pub(crate) fn fill_the_temporary_directory_with_empty_files(_: &Target) -> Attempt {
    let directory = format!("/tmp/herd-files-{}", std::process::id());
    fs::create_dir(&directory)?;
    let create = |number| File::create_new(format!("{directory}/{number}")).map(drop);
    let result = (0..TMP_LIMIT / 256).try_for_each(create);
    fs::remove_dir_all(&directory)?;
    result?;
    Ok(format!("{} files", TMP_LIMIT / 256))
}

pub(crate) fn open_too_many_files(_: &Target) -> Attempt {
    let opened: Result<Vec<_>, _> = (0..2 * OPEN_FILES).map(|_| File::open("/dev/null")).collect();
    Ok(format!("{} files", opened?.len()))
}

/// More than one program needs, and few of what a host has.
pub(crate) fn take_terminals_from_others(_: &Target) -> Attempt {
    let open = |_| File::options().read(true).write(true).open("/dev/ptmx");
    let opened: Result<Vec<_>, _> = (0..100).map(open).collect();
    Ok(format!("{} pseudo-terminals", opened?.len()))
}

pub(crate) fn raise_its_own_limits(_: &Target) -> Attempt {
    let now = getrlimit(Resource::Nofile);
    let raised = now.maximum.map(|maximum| maximum + 1);
    setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: raised })?;
    Ok(format!("{now:?} became {raised:?}"))
}

/// Processes that wait, each for the end of a pipe which comes when this process ends.
pub(crate) fn start_too_many_processes(_: &Target) -> Attempt {
    let mut children: Vec<Child> = Vec::new();
    let mut start = || -> Result<(), Refusal> {
        for _ in 0..2 * PROCESSES {
            let mut wait = Command::new("cat");
            children.push(wait.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?);
        }
        Ok(())
    };
    let result = start();
    let count = children.len();
    for mut child in children {
        drop(child.stdin.take());
        child.wait().expect("it is our child");
    }
    result?;
    Ok(format!("{count} processes"))
}
