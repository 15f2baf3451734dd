use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn sifted(parents: &[&str], states: &[&str]) -> (Vec<HeaderValue>, Vec<HeaderValue>) {
    let mut headers = HeaderMap::new();
    for parent in parents {
        headers.append(TRACEPARENT, parent.parse().unwrap());
    }
    for state in states {
        headers.append(TRACESTATE, state.parse().unwrap());
    }
    sift(&mut headers);
    let left = |name| headers.get_all(name).iter().cloned().collect();
    (left(&TRACEPARENT), left(&TRACESTATE))
}

#[test]
fn a_parent_passes_only_if_it_is_well_formed_and_alone() {
    for (parent, passes) in [
        (PARENT, true),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
        ("", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more", false),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
        ("00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e473600-f067aa0ba902b7-01", false),
    ] {
        assert_eq!(sifted(&[parent], &[]).0.len(), usize::from(passes), "{parent}");
    }
    assert_eq!(sifted(&[PARENT, PARENT], &["a=1"]), (vec![], vec![]));
}

#[test]
fn a_state_passes_only_if_it_is_well_formed_and_has_a_parent() {
    let long = format!("a={}", "x".repeat(256));
    let many: Vec<_> = (0..33).map(|number| format!("k{number}=v")).collect();
    let large: Vec<_> = (0..3).map(|number| format!("k{number}={}", "x".repeat(200))).collect();
    for (states, passes) in [
        (&["a=1"][..], true),
        (&["a=1,b=2", "c=3"], true),
        (&["tenant@vendor=1, *0=a b!"], false),
        (&["0tenant@vendor=1 , ,b=a b!"], true),
        (&[&long], true),
        (&[&format!("{long}x")], false),
        (&[&many[..32].join(",")], true),
        (&[&many.join(",")], false),
        (&[&large.join(",")], false),
        (&["a"], false),
        (&["a="], false),
        (&["=1"], false),
        (&["A=1"], false),
        (&["a@b@c=1"], false),
        (&["a=b=c"], false),
        (&["a=\tb"], false),
    ] {
        let (_, left) = sifted(&[PARENT], states);
        assert_eq!(left.len(), if passes { states.len() } else { 0 }, "{states:?}");
    }
    assert_eq!(sifted(&[], &["a=1"]).1.len(), 0);
    assert_eq!(sifted(&["x"], &["a=1"]).1.len(), 0);
}
