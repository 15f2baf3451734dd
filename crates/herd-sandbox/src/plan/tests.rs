use std::{fmt::Write as _, fs::File, os::fd::OwnedFd};

use proptest::prelude::*;

use super::*;
use crate::{Isolation, Limit, Mount};

const ROOT: u32 = 0;
const USER: u32 = 1000;

fn full_spec() -> Spec {
    let mut spec = Spec::new("program");
    spec.args = vec!["one".into(), "".into()];
    spec.env = vec![("NAME".into(), "a secret".into()), ("HOME".into(), "/workspace".into())];
    spec.cwd = Some("/directory".into());
    spec.limits.push((Limit::Stack, u64::MAX));
    spec.listen = vec![null()];
    spec
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn sealed_spec(mode: Mode) -> Spec {
    let mut spec = full_spec();
    spec.listen.clear();
    spec.isolation = Isolation::new(mode);
    spec.isolation.cgroup = Some(null());
    spec.isolation.seccomp = Seccomp::Off;
    spec.isolation.files.mounts.push(Mount {
        source: "/state/worker-1/workspace".into(),
        target: "/workspace".into(),
        writable: true,
    });
    spec.isolation.files.read_only = vec!["/srv/app".into()];
    spec.isolation.files.writable = vec!["/srv/app/cache".into()];
    spec.isolation.files.hidden = vec!["/usr/games".into()];
    spec
}

fn host(uid: u32) -> Host {
    Host { kernel: (6, 12), uid, gid: uid, root: uid == ROOT, landlock: 7, ..Host::unknown() }
}

fn as_root(mode: Mode) -> Spec {
    let mut spec = sealed_spec(mode);
    spec.isolation.identity = Some(Identity { uid: 60_001, gid: 60_001 });
    spec
}

fn obstacle(step: &str) -> Obstacle {
    Obstacle {
        step: step.to_owned(),
        errno: Some(libc::EPERM),
        reason: "it is off".into(),
        remedy: "turn it on".into(),
    }
}

/// A plan for people, without the many system directories.
fn shown(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let is_one_of_many =
            matches!(step, Step::System { .. } | Step::Hide { .. } | Step::Freeze { .. } | Step::Link { .. });
        if is_one_of_many && !["/usr", "/usr/games", "/proc/sys"].contains(&step.detail().as_str()) {
            continue;
        }
        writeln!(text, "{:?}: {} {}", step.place(), step.name(), step.detail()).unwrap();
    }
    for missing in &plan.missing {
        writeln!(text, "missing {missing}").unwrap();
    }
    text
}

#[test]
fn the_order_without_a_sandbox_is_this() {
    insta::assert_snapshot!(shown(&Plan::new(&full_spec(), &host(USER)).unwrap()));
}

#[test]
fn the_order_as_root_is_this() {
    insta::assert_snapshot!(shown(&Plan::new(&as_root(Mode::Required), &host(ROOT)).unwrap()));
}

#[test]
fn the_order_without_root_is_this() {
    insta::assert_snapshot!(shown(&Plan::new(&sealed_spec(Mode::Required), &host(USER)).unwrap()));
}

#[test]
fn the_order_with_a_way_out_is_this() {
    let mut spec = as_root(Mode::Required);
    spec.isolation.network = Network::Egress;
    spec.isolation.egress.allow = vec!["10.1.2.0/24".parse().unwrap(), Reach::Loopback];
    spec.isolation.egress.host = vec![[203, 0, 113, 7].into()];
    insta::assert_snapshot!(shown(&Plan::new(&spec, &host(ROOT)).unwrap()));
}

#[test]
fn the_order_without_user_namespaces_is_this() {
    let mut host = host(USER);
    host.obstacles.insert(Layer::UserNamespace, obstacle("user namespace"));
    let mut spec = sealed_spec(Mode::BestEffort);
    spec.tcp_ports = vec![8000];
    insta::assert_snapshot!(shown(&Plan::new(&spec, &host).unwrap()));
}

#[test]
fn the_order_as_root_without_user_namespaces_is_this() {
    let mut host = host(ROOT);
    host.obstacles.insert(Layer::UserNamespace, obstacle("worker's user namespace"));
    insta::assert_snapshot!(shown(&Plan::new(&as_root(Mode::BestEffort), &host).unwrap()));
}

#[test]
fn the_order_without_a_cgroup_is_this() {
    let mut spec = as_root(Mode::Required);
    spec.isolation.cgroup = None;
    insta::assert_snapshot!(shown(&Plan::new(&spec, &host(ROOT)).unwrap()));
}

#[test]
fn the_order_on_an_old_kernel_is_this() {
    let mut host = Host { kernel: (5, 10), landlock: 0, ..host(ROOT) };
    host.obstacles.insert(Layer::Files, obstacle("new root"));
    insta::assert_snapshot!(shown(&Plan::new(&as_root(Mode::BestEffort), &host).unwrap()));
}

#[test]
fn what_is_required_and_missing_is_an_error_that_names_it() {
    let mut host = host(USER);
    host.obstacles.insert(Layer::UserNamespace, obstacle("user namespace"));
    let error = Plan::new(&sealed_spec(Mode::Required), &host).unwrap_err().to_string();
    assert_eq!(
        error,
        "the sandbox cannot be had: user namespace, PID namespace, own root, IPC namespace, UTS namespace, cgroup \
         namespace, network namespace: step 'user namespace' fails with Operation not permitted (os error 1): it is \
         off; turn it on"
    );
}

#[test]
fn root_without_a_user_for_the_worker_is_refused() {
    let error = Plan::new(&sealed_spec(Mode::Required), &host(ROOT)).unwrap_err();
    let PlanError::Missing(missing) = error else { panic!("{error}") };
    assert_eq!(missing.iter().map(|missing| missing.layer).collect::<Vec<_>>(), [Layer::Identity]);
}

/// As in a container that has taken some of root's capabilities.
#[test]
fn a_root_that_cannot_give_users_is_refused() {
    let mut host = Host { root: false, ..host(ROOT) };
    host.obstacles.insert(Layer::Identity, obstacle("own user"));
    let error = Plan::new(&sealed_spec(Mode::Required), &host).unwrap_err();
    let PlanError::Missing(missing) = error else { panic!("{error}") };
    assert_eq!(missing.iter().map(|missing| missing.layer).collect::<Vec<_>>(), [Layer::Identity]);
}

#[test]
fn every_layer_that_is_wanted_is_built_or_missing() {
    for mode in [Mode::BestEffort, Mode::Required] {
        let plan = Plan::new(&as_root(mode), &host(ROOT)).unwrap();
        let expected: Vec<_> =
            Layer::ALL.into_iter().filter(|layer| !matches!(layer, Layer::Seccomp | Layer::Egress)).collect();
        assert_eq!(plan.layers(), expected);
        assert_eq!(plan.missing(), []);
    }
    for layer in Layer::ALL {
        let mut host = host(ROOT);
        host.obstacles.insert(layer, obstacle("some step"));
        let mut spec = as_root(Mode::BestEffort);
        spec.isolation.seccomp = Seccomp::Default;
        spec.isolation.network = Network::Egress;
        let plan = Plan::new(&spec, &host).unwrap();
        // A limit is not judged here: whoever makes the cgroup knows whether it can be had.
        if layer != Layer::Cgroup && layer != Layer::Landlock {
            assert!(!plan.layers().contains(&layer), "{layer}");
            assert!(plan.missing().iter().any(|missing| missing.layer == layer), "{layer}");
        }
    }
}

#[test]
fn no_link_is_followed_below_what_a_worker_can_write() {
    let mut spec = as_root(Mode::Required);
    spec.isolation.files.writable = vec!["/srv/data".into()];
    spec.isolation.files.read_only = vec!["/srv/data/fixed".into(), "/srv/database".into(), "/srv".into()];
    let plan = Plan::new(&spec, &host(ROOT)).unwrap();
    let followed = plan.steps.iter().filter_map(|step| match step {
        Step::Bind { source, follow, .. } if source.to_bytes().starts_with(b"/srv") => {
            Some((source.to_str().unwrap(), *follow))
        }
        _ => None,
    });
    let expected = [("/srv", true), ("/srv/data", true), ("/srv/data/fixed", false), ("/srv/database", true)];
    assert_eq!(followed.collect::<Vec<_>>(), expected);
}

#[test]
fn no_explanation_tells_of_the_environment() {
    for explanation in Plan::new(&as_root(Mode::Required), &host(ROOT)).unwrap().explain() {
        assert!(!explanation.detail.contains("a secret"), "{explanation:?}");
        assert!(explanation.reason.ends_with('.'), "{explanation:?}");
    }
}

#[test]
fn a_plan_arrives_as_it_was_sent() {
    let mut host = host(USER);
    let fallback = Plan::new(&sealed_spec(Mode::BestEffort), &host).unwrap();
    host.obstacles.insert(Layer::UserNamespace, obstacle("user namespace"));
    let mut filtered = as_root(Mode::Required);
    filtered.isolation.seccomp = Seccomp::Default;
    filtered.listen_ports = vec![8000];
    filtered.isolation.network = Network::Egress;
    let plans = [
        Plan::new(&full_spec(), &host).unwrap(),
        fallback,
        Plan::new(&filtered, &self::host(ROOT)).unwrap(),
        Plan::new(&filtered, &self::host(ROOT)).unwrap().rehearsal(),
    ];
    for plan in plans {
        let bytes = plan.encode();
        assert_eq!(Plan::decode(&bytes).unwrap().steps, plan.steps);
        for length in 0..bytes.len().min(2000) {
            assert_eq!(Plan::decode(&bytes[..length]), Err(Malformed), "{length}");
        }
        assert_eq!(Plan::decode(&[bytes, vec![0]].concat()), Err(Malformed));
    }
}

#[test]
fn a_relative_path_is_refused() {
    let mut spec = as_root(Mode::Required);
    spec.isolation.files.hidden = vec!["games".into()];
    let error = Plan::new(&spec, &host(ROOT)).unwrap_err();
    assert_eq!(error.to_string(), "a hidden path \"games\" is relative: give an absolute path");
}

proptest! {
    #[test]
    fn any_spec_that_is_valid_arrives(
        program in "[^\\x00]{1,20}",
        args in prop::collection::vec("[^\\x00]{0,20}", 0..5),
        env in prop::collection::hash_map("[^=\\x00]{1,8}", "[^\\x00]{0,20}", 0..5),
    ) {
        let mut spec = Spec::new(program);
        spec.args = args.into_iter().map(Into::into).collect();
        spec.env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        spec.isolation = Isolation::new(Mode::Required);
        let plan = Plan::new(&spec, &host(USER)).unwrap();
        let bytes = plan.encode();
        prop_assert_eq!(Plan::decode(&bytes), Ok(plan));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Plan::decode(&bytes);
    }

    /// Bytes that are nearly right lead further in than random ones.
    #[test]
    fn no_change_makes_the_decoder_panic(changes in prop::collection::vec(any::<(usize, u8)>(), 1..4)) {
        let mut bytes = Plan::new(&as_root(Mode::Required), &host(ROOT)).unwrap().encode();
        for (place, value) in changes {
            let length = bytes.len();
            bytes[place % length] = value;
        }
        let _ = Plan::decode(&bytes);
    }
}
