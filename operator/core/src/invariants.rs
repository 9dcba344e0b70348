//! What must always hold, each written once: the desk checks after every event in debug builds, and so does the seeded
//! test.

use std::collections::BTreeSet;

use crate::{
    coordinator::Coordinator,
    shards::{Seat, Shards},
};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

fn hold(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}

/// I1. Every shard is in exactly one state: the counts add up to the plan.
///
/// # Errors
/// When they do not.
pub fn counts_add_up(shards: &Shards) -> Result<(), Broken> {
    let settled = u64::from(shards.done().len()) + u64::from(shards.failed().len());
    let sum = settled + u64::from(shards.pending()) + shards.holes() as u64;
    hold(sum == u64::from(shards.total()), || {
        format!("I1: states add up to {sum} of {} shards: {shards:?}", shards.total())
    })
}

/// I2. A settled shard has no attempt.
///
/// # Errors
/// When one has.
pub fn settled_shards_rest(shards: &Shards) -> Result<(), Broken> {
    let restless = shards.leased().keys().chain(shards.waiting().keys()).find(|index| shards.is_settled(**index));
    hold(restless.is_none(), || format!("I2: shard {restless:?} is settled and has an attempt"))
}

/// I3. An epoch is held once: no two leases share it (P1).
///
/// # Errors
/// When two do.
pub fn epochs_are_unique(shards: &Shards) -> Result<(), Broken> {
    let epochs: BTreeSet<_> = shards.leased().values().map(|leased| leased.lease.epoch).collect();
    hold(epochs.len() == shards.leased().len(), || "I3: two leases have one epoch".into())
}

/// I4. Every lease belongs to a worker that is known (P2).
///
/// # Errors
/// When one does not.
pub fn leases_have_workers(shards: &Shards, known: impl Fn(Seat) -> bool) -> Result<(), Broken> {
    let orphan = shards.leased().iter().find(|(_, leased)| !known(leased.lease.seat));
    hold(orphan.is_none(), || format!("I4: {orphan:?} is leased to nobody"))
}

/// I5. What was done stays done (monotone per run, P25).
///
/// # Errors
/// When something is not done any more.
pub fn done_stays_done(before: &Shards, after: &Shards) -> Result<(), Broken> {
    let undone = before.done().iter().find(|index| !after.done().contains(*index));
    hold(undone.is_none(), || format!("I5: shard {undone:?} was done and is not"))
}

/// Everything that one coordinator can check of itself. A broken promise stops the desk: the operator quarantines the
/// job rather than go on from a wrong state.
#[allow(clippy::panic, reason = "prefer to stop over going on wrong; the desk is restarted from the stored status")]
pub fn check(coordinator: &Coordinator) {
    let shards = coordinator.shards();
    let checks = [
        counts_add_up(shards),
        settled_shards_rest(shards),
        epochs_are_unique(shards),
        leases_have_workers(shards, |seat| coordinator.workers.contains_key(&seat)),
    ];
    for check in checks {
        if let Err(broken) = check {
            panic!("{broken}");
        }
    }
}
