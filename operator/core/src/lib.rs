//! Every decision of Hyperflow. No I/O, no clock, no chance, no threads: what happened comes in as an event with the
//! time, what to do goes out as effects, and the same events give the same effects for ever.
//!
//! | question | file |
//! | --- | --- |
//! | is this spec sound | [`job`] |
//! | what is input, and what is it cut into | [`source`], [`selection`], [`cutter`], [`boundary`] |
//! | what is in shard 17 | [`plan`] |
//! | what does a user's program get, and what of it counts | [`program`] |
//! | what is its result called | [`output`] |
//! | what may a path be | [`paths`] |
//! | where does anything lie in the output store | [`layout`] |
//! | whose are the names of results | [`claim`] |
//! | which state is a shard in, who holds it | [`shards`], with its [`history`] |
//! | who gets which shard next | [`coordinator`], `leasing.rs` |
//! | which copies of the input are made or dropped | [`blocks`], [`coordinator`], `blocks.rs` |
//! | why is nothing leased just now | [`reasons`] |
//! | why did a pod end, and who pays | [`causes`], [`coordinator`], `losses.rs` |
//! | what does a failure do, by which rule | [`policy`] |
//! | when is there another attempt | [`retry`] |
//! | what does another run leave as it is | [`rerun`], [`coordinator`], `runs.rs` |
//! | how many shards may fail | [`tolerance`] |
//! | how long may an attempt take | [`limits`] |
//! | when does progress count, where does recovery start | [`checkpoint`] |
//! | which step makes a result visible, what comes next | [`publish`] |
//! | how many worker pods | [`coordinator`], `pool.rs` |
//! | what does the status say | [`status`], and why nothing moves in `conditions.rs` |
//! | what does the next operator process read | [`recovery`] |
//! | how long has the job been active | [`clock`] |
//! | when will it be complete | [`estimate`] |
//! | when does the object of a job that has ended go | [`expiry`] |
//! | what became of a status write | [`ledger`] |
//! | what does a worker do | [`worker`] |
//! | what must always hold | [`invariants`] |
//!
//! Rules are cited by their number in the protocol: P1 to P31, listed in `ARCHITECTURE.md`.

pub mod blocks;
pub mod boundary;
pub mod causes;
pub mod checkpoint;
pub mod claim;
pub mod clock;
mod conditions;
pub mod coordinator;
pub mod cutter;
pub mod estimate;
pub mod expiry;
pub mod history;
pub mod invariants;
pub mod job;
pub mod layout;
pub mod ledger;
pub mod limits;
pub mod output;
pub mod pacing;
pub mod paths;
pub mod plan;
pub mod policy;
pub mod program;
pub mod publish;
pub mod ranges;
pub mod reasons;
pub mod recovery;
pub mod rerun;
pub mod retry;
pub mod selection;
pub mod shards;
pub mod source;
pub mod status;
pub mod tolerance;
pub mod worker;

/// The time, as an argument: the core has no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; its zero means nothing.
    pub millis: u64,
    /// Seconds since 1970, for people and for what outlives the process.
    pub unix: i64,
}
