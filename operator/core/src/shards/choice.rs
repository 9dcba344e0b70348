//! Which shard is leased next.

use hyperflow_api::ids::ShardIndex;

use super::{Shards, Waiting};
use crate::reasons::NotNow;

/// When a shard is asked for, and what may not be given then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Now, in milliseconds.
    pub now: u64,
    /// After a take-over not every worker has said yet what it holds: nothing in limbo is given (P18).
    pub claims_stand: bool,
    /// The worker has a suspect, and gets no other beside it (P16).
    pub with_suspect: bool,
    /// No shard from here on: no stored reservation covers it (P18).
    pub limit: ShardIndex,
    /// Most holes (P14).
    pub window: usize,
}

impl Shards {
    /// The shard to lease next: retries that are due, lowest index first, then limbo, then the next one (P14). What `leaves`
    /// names of those that wait is left to other workers.
    ///
    /// # Errors
    /// With why there is none now.
    pub(crate) fn candidate(
        &self,
        asking: &Asking,
        leaves: impl Fn(ShardIndex, &Waiting) -> bool,
    ) -> Result<ShardIndex, NotNow> {
        let &Asking { now, claims_stand, with_suspect, limit, window } = asking;
        let (mut held_back, mut uncovered, mut left) = (false, false, false);
        for (&index, waiting) in self.waiting.iter().filter(|(_, waiting)| waiting.until <= now) {
            let apart = waiting.history.suspect && with_suspect;
            let leave = leaves(index, waiting);
            if index < limit && !apart && !leave {
                return Ok(index);
            }
            held_back |= apart;
            left |= leave;
            uncovered |= index >= limit;
        }
        let fresh = self.limbo.first().filter(|_| !claims_stand);
        let fresh = fresh.or_else(|| (self.next < self.total).then_some(self.next));
        match fresh.filter(|index| *index < limit) {
            Some(index) if self.holes() < window => Ok(index),
            Some(_) => Err(NotNow::WindowFull),
            None if held_back => Err(NotNow::SuspectsApart),
            None if left => Err(NotNow::LeftToOthers),
            None if uncovered || fresh.is_some() => Err(NotNow::ReservationPending),
            None if !self.limbo.is_empty() => Err(NotNow::ClaimsStand),
            None if self.leased.is_empty() && !self.waiting.is_empty() => Err(NotNow::BackingOff),
            None => Err(NotNow::AllLeased),
        }
    }

    /// Whether a shard waits that may have killed a worker.
    pub(crate) fn any_suspect_waits(&self) -> bool {
        self.waiting.values().any(|waiting| waiting.history.suspect)
    }
}
