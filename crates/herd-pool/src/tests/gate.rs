use crate::gate::{Gate, MAX_LEASES, Refused};

#[test]
fn a_closed_gate_gives_no_lease_and_takes_back_those_that_are_out() {
    let gate = Gate::open();
    gate.lease().unwrap();
    gate.lease().unwrap();
    assert_eq!(gate.close().leases(), 2);
    assert_eq!(gate.lease(), Err(Refused::Closed));
    assert!(!gate.give_back());
    assert!(gate.give_back(), "closing asks to hear of the last lease");
    assert_eq!((gate.read().leases(), gate.read().requests()), (0, 2));
}

#[test]
fn a_lease_that_came_and_went_is_noticed() {
    let gate = Gate::open();
    let seen = gate.read();
    gate.lease().unwrap();
    assert!(!gate.give_back());
    assert_eq!(gate.read().leases(), seen.leases());
    assert!(!gate.close_unchanged(seen));
    assert!(gate.close_unchanged(gate.read()));
}

#[test]
fn full_counters_do_not_spill_into_the_flags() {
    let gate = Gate::nearly_full();
    gate.lease().unwrap();
    assert_eq!(gate.lease(), Err(Refused::Full));
    let reading = gate.read();
    assert_eq!((reading.leases(), reading.requests()), (MAX_LEASES, 0));
    assert!(!gate.give_back(), "the gate is watched all of a sudden");
    assert_eq!(gate.lease(), Ok(()), "the gate is closed all of a sudden");
}
