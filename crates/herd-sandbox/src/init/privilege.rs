//! Capabilities: what of them the worker loses, and what init keeps.

use std::io;

use rustix::{
    io::Errno,
    thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
        capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    },
};

use crate::plan::{Plan, Step};

/// No user ID and no program gives capabilities from here on, to this process and all that it starts; see
/// capabilities(7), "The securebits flags".
pub(super) fn forswear() -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    // A child of an init that has forsworn has forsworn, and could not say so again.
    if capabilities_secure_bits()?.contains(bits) { Ok(()) } else { Ok(set_capabilities_secure_bits(bits)?) }
}

/// Gives up all capabilities but these.
pub(super) fn keep(capabilities: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: capabilities, permitted: capabilities, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Leaves init with what it needs once its worker runs: to signal the worker's processes, which have another user. Where
/// it may say so, also that it never has more again, whatever it executes.
///
/// Further commands become the worker's user in the worker's user namespace, which init owns and needs no capability for.
/// Where root could not make one, init keeps those that it takes.
pub(super) fn keep_what_init_needs(plan: &Plan<'_>) -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        forswear()?;
    }
    let has = |wanted: fn(&Step<'_>) -> bool| plan.steps.iter().any(wanted);
    let becomes_user = has(|step| matches!(step, Step::Identity { .. }))
        && !has(|step| matches!(step, Step::WorkerUserNamespace { .. }));
    let mut kept = CapabilitySet::empty();
    if rustix::process::geteuid().is_root() {
        kept |= CapabilitySet::KILL;
    }
    if becomes_user {
        kept |= held.permitted & (CapabilitySet::SETUID | CapabilitySet::SETGID);
    }
    keep(kept)
}
