//! Workspaces that outlive their workers, and users that do.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use herd_pool::{AcquireError, EndReason, Lease, Pool, SessionId, Worker as _, WorkerFactory as _, WorkerId};
use herd_process::{Mode, ProcessFactory, ProcessFactoryBuilder, StartError};
use rustix::process::geteuid;

use crate::fixture::{patiently, sandboxed_role, shell};

/// Users that no other test asks for: they lie behind the default ones.
fn users(first: u32, count: u32) -> std::ops::RangeInclusive<u32> {
    let first = 2_100_090_000 + std::process::id() % 1_000 * 10 + first;
    first..=first + count - 1
}

async fn acquire(pool: &Pool<ProcessFactory>, name: &str) -> Lease<ProcessFactory> {
    let session = SessionId::new(name).expect("it is an ID");
    patiently(pool.acquire(&session)).await.expect("there is a worker")
}

fn pool(options: ProcessFactoryBuilder) -> Pool<ProcessFactory> {
    let factory = options.build().expect("the sandbox can be had");
    Pool::builder(factory).build().expect("the options are valid")
}

pub(crate) async fn a_sessions_files_outlive_a_crash_the_session_and_the_daemon() {
    let base = tempfile::tempdir().expect("a directory");
    let workspaces = base.path().join("workspaces");
    let options = || sandboxed_role(&["serve"]).persistent_workspaces(&workspaces);
    let first = pool(options());
    let lease = acquire(&first, "alice").await;
    let her_user = shell(lease.worker(), "echo one > diary; mkdir private; chmod 700 private; id -u").await;
    let _ = patiently(lease.worker().client().get("/abort")).await;
    assert!(matches!(patiently(lease.ended()).await, EndReason::Crashed(_)));

    let lease = acquire(&first, "alice").await;
    assert!(lease.is_new());
    assert_eq!(
        shell(lease.worker(), "cat diary; echo two >> diary; touch private/x; id -u").await,
        format!("one\n{her_user}")
    );
    patiently(first.kill(&SessionId::new("alice").expect("it is an ID"))).await.expect("it is live");
    drop(lease);
    // Another session has files of its own, and cannot even name hers.
    let bob = acquire(&first, "bob").await;
    assert_eq!(shell(bob.worker(), "ls -A /workspace").await, "");
    let his_user = shell(bob.worker(), "id -u").await;
    assert_eq!(his_user == her_user, !geteuid().is_root());
    drop(bob);
    patiently(first.shutdown()).await;

    let second = pool(options());
    let lease = acquire(&second, "alice").await;
    assert_eq!(shell(lease.worker(), "cat diary; ls private; id -u").await, format!("one\ntwo\nx\n{her_user}"));
    drop(lease);
    patiently(second.shutdown()).await;
    assert_eq!(fs::read_dir(&workspaces).expect("it is there").count(), 2);
}

pub(crate) async fn two_daemons_never_have_a_worker_in_one_workspace() {
    let base = tempfile::tempdir().expect("a directory");
    let daemons = [(); 2].map(|()| pool(sandboxed_role(&["serve"]).persistent_workspaces(base.path().join("kept"))));
    let first = acquire(&daemons[0], "alice").await;
    let alice = SessionId::new("alice").expect("it is an ID");
    let error = patiently(daemons[1].acquire(&alice)).await.expect_err("the first daemon's worker has it");
    let AcquireError::Spawn(error) = error else { panic!("{error}") };
    assert!(
        matches!(error.reason().downcast_ref(), Some(StartError::Unavailable { what: "workspace", .. })),
        "{error}"
    );
    assert!(error.to_string().contains("another live worker has the session's workspace"), "{error}");
    drop(first);
    patiently(daemons[0].shutdown()).await;
    // The failed start is followed by a pause.
    let again = async {
        while daemons[1].acquire(&alice).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    patiently(again).await;
    patiently(daemons[1].shutdown()).await;
}

pub(crate) async fn a_hostile_session_id_names_no_other_directory() {
    let base = tempfile::tempdir().expect("a directory");
    let pool = pool(sandboxed_role(&["serve"]).persistent_workspaces(base.path().join("kept")));
    let long = "a".repeat(256);
    for name in ["../../etc", "..", "/", "%2e%2e%2f", &long] {
        let lease = acquire(&pool, name).await;
        assert_eq!(shell(lease.worker(), "ls -A; echo mine > file; pwd").await, "/workspace");
        drop(lease);
    }
    patiently(pool.shutdown()).await;
    assert_eq!(fs::read_dir(base.path()).expect("it is there").count(), 1);
    assert_eq!(fs::read_dir(base.path().join("kept")).expect("it is there").count(), 5);
}

/// Only root gives its workers users of their own.
pub(crate) async fn no_two_live_workers_have_the_same_user() {
    assert!(geteuid().is_root(), "workers have users of their own only where root starts them; run this test as root");
    let range = users(0, 2);
    // Two daemons on one host.
    let daemons =
        [(); 2].map(|()| sandboxed_role(&["serve"]).uid_range(range.clone()).build().expect("the sandbox can be had"));
    let spawn = async |daemon: usize, number: u64| patiently(daemons[daemon].spawn(WorkerId::new(number))).await;
    let first = spawn(0, 1).await.expect("there are two users");
    let second = spawn(1, 1).await.expect("there are two users");
    let [one, two] = [shell(&first, "id -u; id -g; id -G").await, shell(&second, "id -u; id -g; id -G").await];
    assert_ne!(one, two);
    for said in [one, two] {
        let ids: Vec<u32> = said.split_whitespace().map(|id| id.parse().expect("a number")).collect();
        assert!(ids.len() == 3 && range.contains(&ids[0]) && ids.iter().all(|id| *id == ids[0]), "{said}");
    }
    let error = spawn(0, 2).await.expect_err("both are taken").to_string();
    assert!(error.contains("all 2 user IDs of uid_range") && error.contains("widen the range"), "{error}");
    patiently(second.kill()).await;
    spawn(0, 3).await.expect("one is free again");
}

pub(crate) async fn a_workers_init_holds_on_to_its_user() {
    assert!(geteuid().is_root(), "workers have users of their own only where root starts them; run this test as root");
    let options = sandboxed_role(&["serve"]).uid_range(users(5, 1));
    let worker = crate::fixture::start(options).await;
    let user = shell(&worker, "id -u").await;
    let lock = format!("/run/herd-uids/{user}");
    let holds = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
        descriptors.filter(|fd| fs::read_link(fd.path()).is_ok_and(|open| open == Path::new(&lock))).count()
    };
    assert_eq!((holds(worker.init_pid()), holds(worker.pid())), (1, 0), "init does, and the worker does not");
    patiently(worker.kill()).await;
    assert!(!Path::new(&lock).exists(), "it is gone with the worker");
}

pub(crate) async fn a_range_of_users_that_this_process_does_not_know_is_refused() {
    assert!(geteuid().is_root(), "workers have users of their own only where root starts them; run this test as root");
    // The one number that no user namespace knows is refused anyway; all others are known outside of containers.
    let known = fs::read_to_string("/proc/self/uid_map").expect("it is there");
    let whole = known.split_whitespace().eq(["0", "0", "4294967295"]);
    let built = sandboxed_role(&["serve"]).uid_range(4_294_967_000..=4_294_967_100).build();
    assert_eq!(built.is_ok(), whole, "{built:?}");
}

pub(crate) async fn a_range_with_users_that_others_have_is_refused() {
    assert!(geteuid().is_root(), "workers have users of their own only where root starts them; run this test as root");
    let refused = |mode: Mode| {
        let options = || sandboxed_role(&["serve"]).sandbox(mode).uid_range(1..=99);
        let [built, planned] = [options().build().map(drop), options().plan().map(drop)];
        assert_eq!(built, planned);
        built
    };
    for mode in [Mode::Required, Mode::BestEffort] {
        let error = refused(mode).expect_err("each system has some of these").to_string();
        assert!(error.starts_with("uid_range: 1-99 cannot be workers' alone: /etc/passwd gives user "), "{error}");
        assert!(error.contains("name users that nobody else has, such as 2100000000-2100065535"), "{error}");
    }
}

pub(crate) async fn a_working_directory_that_no_workers_user_may_enter_is_refused() {
    assert!(geteuid().is_root(), "workers have users of their own only where root starts them; run this test as root");
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("directory");
    fs::create_dir(&directory).expect("a directory");
    let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    let refused = |cwd: &Path| {
        let built = sandboxed_role(&["serve"]).cwd(cwd).build();
        built.err().map(|error| error.to_string())
    };
    for mode in [0o700, 0o770, 0o776] {
        permit(&directory, mode);
        let told = refused(&directory).unwrap_or_else(|| panic!("{mode:o}"));
        let remedy = format!("give it (chmod o+x {}), or name another directory", directory.display());
        assert!(told.starts_with("cwd: the workers' users (") && told.contains(&remedy), "{told}");
    }
    permit(&directory, 0o711);
    // Workers have another one above it.
    permit(place.path(), 0o700);
    assert_eq!(refused(&directory), None);
    assert_eq!(refused(Path::new("{{.Workspace}}")), None);
    let worker = crate::fixture::start(sandboxed_role(&["serve"]).cwd(&directory)).await;
    assert_eq!(shell(&worker, "pwd").await, directory.to_str().expect("UTF-8"));
}
