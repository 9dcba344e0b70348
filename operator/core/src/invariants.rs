//! What is promised, each promise a function with a number and a name, written once.
//!
//! | who calls | what |
//! | --- | --- |
//! | the desk, after every event, in builds with debug assertions | [`check`] |
//! | the simulator, after every event and at the end | all of them |
//! | the end-to-end tests | I1, I3, I9, I10, I13, on what lies in the store and what the API server says |
//!
//! I1 to I13 keep the numbers of the catalogue they come from. What is missing there is promised of other parts: access (I11,
//! I12). A commit is P5's act; what rises does so per run (P25).

mod blocks;
mod books;
mod end;
mod history;
mod store;
mod twins;

pub use blocks::{copies_stay_apart, enough_copies_stay, returns_move_what_differs};
pub use books::{
    check, counts_add_up, epochs_are_unique, leases_have_workers, settled_shards_rest, stale_epochs_change_nothing,
    status_fits, twins_are_apart,
};
pub use end::{
    Hardship, nobody_is_given_up_for_nothing, nothing_temporary_is_left, outputs_are_right, the_end_is_explained,
};
pub use history::{
    acknowledged_is_stored, done_stays_done, follows_the_highest, goes_on_alone, granted_by_right,
    kept_what_was_acknowledged, rests_when_told, status_is_monotone, writes_are_paced,
};
pub use store::{
    cleaned_is_stored, commits_stay, one_winner_each, results_are_recorded, resumed_is_durable, status_never_leads,
};
pub use twins::{finishes_last, one_of_two_is_spared, swept_after_it_finished, two_at_most, who_lost_is_told};

/// A promise that was broken: which, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{promise}: {how}")]
pub struct Broken {
    /// Its number and name: `I3 status never leads`.
    pub promise: &'static str,
    /// By what.
    pub how: String,
}

/// A broken promise stops the desk: the operator quarantines the job rather than go on from a wrong state.
///
/// # Panics
/// When it is broken.
#[allow(clippy::panic, reason = "prefer to stop over going on wrong; the desk is restarted from the stored status")]
pub fn demand(promise: Result<(), Broken>) {
    if let Err(broken) = promise {
        panic!("{broken}");
    }
}

fn hold(promise: &'static str, holds: bool, how: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { promise, how: how() }) }
}
