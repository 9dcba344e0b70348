//! What a process may not exceed while it starts, and while it has a shard.

use std::time::{Duration, Instant};

use hyperflow_core::program::ended::Limit;

use crate::{attempt::Attempt, exec::limits::Guard, fault::Fault};

/// What it may not exceed.
pub enum Bounds<'a> {
    /// Until it is ready.
    Start {
        /// Since when.
        since: Instant,
        /// How long.
        patience: Duration,
        /// Time between SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// Until its shard is answered.
    Shard(Box<Shard<'a>>),
}

/// A shard that is not answered yet.
pub struct Shard<'a> {
    guard: Guard<'a>,
    bytes: u64,
    position: u64,
}

impl<'a> Bounds<'a> {
    /// For a shard of so many bytes.
    pub fn shard(guard: Guard<'a>, bytes: u64) -> Self {
        Self::Shard(Box::new(Shard { guard, bytes, position: 0 }))
    }

    /// Time between SIGTERM and SIGKILL when the worker leaves.
    pub fn grace(&self) -> Duration {
        match self {
            Self::Start { grace, .. } => *grace,
            Self::Shard(shard) => shard.guard.limits.grace,
        }
    }
}

impl Shard<'_> {
    /// It says how far it is.
    pub fn advance(&mut self, attempt: &Attempt, done: f64) {
        self.guard.moved();
        // Of a shard, a fraction is as good as its bytes.
        let position = (self.bytes as f64 * done) as u64;
        self.position = self.position.max(position.min(self.bytes));
        attempt.progressed(self.position);
    }

    /// Whether it has passed a limit.
    pub fn beyond(&mut self, attempt: &Attempt) -> Result<Option<Limit>, Fault> {
        self.guard.beyond(attempt, self.position, false)
    }

    /// The worker leaves: what the program saved last is kept.
    pub fn save_last(&mut self) {
        self.guard.save_last(self.position);
    }
}
