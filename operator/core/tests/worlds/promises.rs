//! What must hold in every state, and what some state must come to, or the worlds prove nothing about it.

use std::sync::atomic::{AtomicU64, Ordering};

use hyperflow_core::invariants::Broken;
use stateright::Property;

use super::{
    kept::Kept,
    world::{State, World},
};

/// The core found its own books wrong, or did not expect what it was told.
pub const CORE: &str = "the core does not panic";
/// The pool is two pods, from the beginning to the end: none is to be made, and none to go before all is done.
pub const POOL: &str = "pods stay until all is done";

/// A shard is given up only after so many workers were lost with it (P16): attempts do not fail here.
pub const GIVEN_UP: &str = "nobody is given up for nothing";

/// A stream ends by a trouble, or with the desk that another's take-over ends: a worker that calls more often than this is
/// sent away for nothing, and for ever.
pub const CALLS: &str = "who calls is let in";
pub const CALLS_MOST: u8 = 8;

/// Where some world must come by.
#[derive(Clone, Copy, Debug)]
pub enum Path {
    TwoLeaders,
    Reissued,
    LateFound,
    HadLanded,
    HadNotLanded,
    LateLanded,
    Conflict,
    Complete,
    Superseded,
    Outranked,
    Revoked,
    Resumed,
    Cleaned,
}

/// To those that are rare only the large scopes come.
const PATHS: [(Path, bool, &str); 13] = [
    (Path::TwoLeaders, false, "two leaders at a time"),
    (Path::Reissued, false, "a lease re-issued after a take-over"),
    (Path::LateFound, false, "a late publish found"),
    (Path::HadLanded, false, "an ambiguous write that had landed"),
    (Path::HadNotLanded, false, "an ambiguous write that had not"),
    (Path::LateLanded, false, "a write that landed when nobody waited for it"),
    (Path::Conflict, false, "a write that met another version"),
    (Path::Complete, false, "all shards done"),
    (Path::Superseded, false, "a superseded desk"),
    (Path::Outranked, true, "an outranked desk"),
    (Path::Revoked, false, "a revoked lease"),
    (Path::Resumed, true, "an attempt that goes on from a checkpoint"),
    (Path::Cleaned, false, "a publish acknowledged"),
];

/// How often each path was taken.
#[derive(Default)]
pub struct Paths([AtomicU64; PATHS.len()]);

impl Paths {
    pub fn visit(&self, path: Path) {
        self.0[path as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each path's name, whether it is rare, and how often it was taken.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, bool, u64)> {
        PATHS.iter().map(|(path, rare, name)| (*name, *rare, self.0[*path as usize].load(Ordering::Relaxed)))
    }
}

/// Keeps the first promise that is broken.
pub fn note(broken: &mut Option<Kept<Broken>>, promise: Result<(), Broken>) {
    if let (None, Err(found)) = (&broken, promise) {
        *broken = Some(Kept::whole(found));
    }
}

macro_rules! kept {
    ($promise:expr) => {
        Property::<World>::always($promise, |_, state: &State| {
            state.broken.as_ref().is_none_or(|broken| broken.promise != $promise)
        })
    };
}

pub fn properties() -> Vec<Property<World>> {
    vec![
        Property::always("status calls done what is in the store", |world: &World, state: &State| {
            state.status.done.iter().all(|index| world.is_committed(state, index))
        }),
        Property::always("a shard is committed once", |_, state: &State| {
            state.commits.iter().all(|commits| *commits <= 1)
        }),
        kept!("I1 one commit a shard"),
        kept!("I3 status never leads"),
        kept!("I5 status is monotone"),
        kept!("I6 resumed is durable"),
        kept!("I8 nothing needed is deleted"),
        kept!("I13 the end is explained"),
        kept!("I19 granted by right"),
        kept!("I20 acknowledged is stored"),
        kept!(GIVEN_UP),
        kept!(CORE),
        kept!(POOL),
        kept!(CALLS),
        Property::always("nothing else is broken", |_, state: &State| state.broken.is_none()),
    ]
}
