//! What a process may not exceed while it starts, and while it has a shard.

use std::time::{Duration, Instant};

use hyperflow_core::program::ended::Limit;

use crate::{
    attempt::Attempt,
    exec::{
        orphans,
        saved::{Saved, Saver},
        scratch::Scratch,
        watch::Limits,
    },
    fault::Fault,
    logs,
};

/// How often limits are looked at.
const TICK: Duration = Duration::from_secs(1);

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

/// What a shard may not exceed.
pub struct Shard<'a> {
    limits: Limits,
    excused: Duration,
    saver: Option<Saver<'a>>,
    scratch: &'a Scratch<'a>,
    bytes: u64,
    position: u64,
    moved: Instant,
    looked: Instant,
    look_after: Duration,
    made: (u64, i64, i64),
}

impl<'a> Bounds<'a> {
    /// For a shard of `bytes`, whose attempt waited `excused` for the program to start.
    pub fn shard(
        limits: Limits,
        excused: Duration,
        saver: Option<Saver<'a>>,
        scratch: &'a Scratch<'a>,
        bytes: u64,
    ) -> Self {
        let now = Instant::now();
        let (look_after, made) = (TICK, (0, 0, 0));
        let (position, moved, looked) = (0, now, now);
        Self::Shard(Box::new(Shard {
            limits,
            excused,
            saver,
            scratch,
            bytes,
            position,
            moved,
            looked,
            look_after,
            made,
        }))
    }

    /// Time between SIGTERM and SIGKILL when the worker leaves.
    pub fn grace(&self) -> Duration {
        match self {
            Self::Start { grace, .. } => *grace,
            Self::Shard(shard) => shard.limits.grace,
        }
    }
}

impl Shard<'_> {
    /// It says how far it is.
    pub fn advance(&mut self, attempt: &Attempt, done: f64) {
        self.moved = Instant::now();
        // Of a shard, a fraction is as good as its bytes.
        let position = (self.bytes as f64 * done) as u64;
        self.position = self.position.max(position.min(self.bytes));
        attempt.progressed(self.position);
    }

    /// Whether it has passed a limit.
    pub fn beyond(&mut self, attempt: &Attempt) -> Result<Option<Limit>, Fault> {
        let Limits { deadline, progress, scratch, .. } = self.limits;
        let age = attempt.age().saturating_sub(self.excused);
        if let Some(deadline) = deadline.filter(|deadline| age >= *deadline) {
            return Ok(Some(Limit::Deadline(deadline.as_secs())));
        }
        if self.looked.elapsed() < self.look_after {
            return Ok(None);
        }
        orphans::reap_ended();
        let began = Instant::now();
        if let Some(most) = scratch {
            let bytes = self.scratch.bytes();
            if bytes > most {
                return Ok(Some(Limit::Scratch(bytes, most)));
            }
        }
        if progress.is_some() {
            let made = self.scratch.output_so_far();
            if made != self.made {
                (self.made, self.moved) = (made, began);
            }
        }
        if let Some(saver) = self.saver.as_mut() {
            match saver.save_changed(self.position)? {
                Saved::TooLarge(bytes) => return Ok(Some(Limit::Checkpoint(bytes))),
                Saved::New => self.moved = Instant::now(),
                Saved::Nothing => {}
            }
        }
        // Looking at a million files must not be all that is done.
        self.look_after = TICK.max(began.elapsed() * 10);
        self.looked = Instant::now();
        Ok(progress.filter(|progress| self.moved.elapsed() >= *progress).map(|late| Limit::NoProgress(late.as_secs())))
    }

    /// The worker leaves: what the program saved last is kept.
    pub fn save_last(&mut self) {
        let position = self.position;
        match self.saver.as_mut().map(|saver| saver.save_last(position)) {
            Some(Ok(Saved::TooLarge(bytes))) => {
                tracing::warn!(bytes, "left without a last checkpoint: it is too large");
            }
            Some(Err(error)) => tracing::warn!(error = logs::causes(&error), "left without a last checkpoint"),
            Some(Ok(Saved::Nothing | Saved::New)) | None => {}
        }
    }
}
