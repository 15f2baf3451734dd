use std::{
    fs, io,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    role::outside,
    stage::{command, exited, gone, launch, ready},
};

pub(crate) fn two_hundred_lives_leave_no_descriptor_and_no_zombie() {
    let output = outside("cycles", &[]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["before", before, "after", after, "zombies", zombies] = words[..] else { panic!("{output:?}") };
    assert_eq!((before, zombies), (after, "0"));
}

pub(crate) fn dropped_inits_are_reaped() {
    let output = outside("drops", &[]).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "reaped\n", "{output:?}");
}

/// Another thread starts programs all the time. What they hold beyond their standard streams they got from a launch,
/// and an init whose socket they held would not notice the launcher's end.
pub(crate) fn programs_started_meanwhile_get_no_descriptor() {
    let done = AtomicBool::new(false);
    let mut others: Vec<Child> = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut others = Vec::new();
            while !done.load(Ordering::Relaxed) || others.is_empty() {
                let start = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
                if others.len() < 200 {
                    others.push(start().expect("it starts"));
                }
            }
            others
        });
        for _ in 0..50 {
            let init = launch(command("true", &[]));
            ready(&init);
            exited(&init);
            gone(&init);
        }
        done.store(true, Ordering::Relaxed);
        other.join().expect("it does not panic")
    });
    // Other tests, and who started these, may have left files open.
    let ours = |name: &String| name.starts_with("socket:") || name.starts_with("/memfd:");
    let before: Vec<String> = open_files(std::process::id()).into_iter().filter(ours).collect();
    for other in &mut others {
        let mut held = open_files(other.id());
        held.retain(|name| ours(name) && !before.contains(name));
        drop(other.stdin.take());
        other.wait().expect("it is our child");
        assert_eq!(held, [""; 0]);
    }
}

fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let name = |entry: io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    entries.filter_map(name).map(|name| name.display().to_string()).collect()
}
