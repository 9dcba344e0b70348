//! Who has a shard, and what is kept of one that had an attempt.

use hyperflow_api::ids::Epoch;

use super::History;

/// A worker process in this coordinator's books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(pub u32);

/// The right of a worker to work on something until a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The right to speak for it.
    pub epoch: Epoch,
    /// Whose it is.
    pub seat: Seat,
    /// Lost at this time if not renewed, in milliseconds.
    pub deadline: u64,
    /// The epoch it was held under before a take-over (P18).
    pub replaces: Option<Epoch>,
    /// When it was granted, in milliseconds.
    pub since: u64,
    /// Where its attempt was then, in bytes of the shard's input.
    pub from: u64,
    /// How far the attempt said it is.
    pub position: u64,
}

/// A shard that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// By which right.
    pub lease: Lease,
    /// By which another worker has it too (P19).
    pub twin: Option<Lease>,
    /// What came before.
    pub history: History,
}

/// A shard that had an attempt and has none now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Not before this time, in milliseconds.
    pub until: u64,
    /// An earlier operator leased it, and the worker that had it may still claim it (P18).
    pub unclaimed: bool,
    /// What came before.
    pub history: History,
}
