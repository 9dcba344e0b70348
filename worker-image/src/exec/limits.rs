//! What an attempt of a program may not exceed, looked at while it runs, and the checkpoints that are saved meanwhile.

use std::time::{Duration, Instant};

use hyperflow_core::{
    limits::{AttemptLimits, Over},
    program::ended::{self, Limit},
};

use super::{
    orphans,
    saved::{Saved, Saver},
    scratch::Scratch,
};
use crate::{attempt::Attempt, fault::Fault, logs, work::Work};

/// How often they are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What an attempt may not exceed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of its age, and of time without progress.
    pub time: AttemptLimits,
    /// Bytes of scratch space.
    pub scratch: Option<u64>,
    /// Time between SIGTERM and SIGKILL when the worker leaves.
    pub grace: Duration,
}

impl Limits {
    /// What the spec allows.
    pub fn of(work: &Work) -> Self {
        let grace = ended::grace_millis(work.brief.spec.workers.termination_grace_period_seconds);
        Self { time: work.job.limits, scratch: work.job.scratch_bytes, grace: Duration::from_millis(grace) }
    }

    /// Time without progress, if it is limited.
    pub fn patience(&self) -> Option<Duration> {
        self.time.progress.map(Duration::from_millis)
    }
}

/// Sees to it that one attempt keeps them.
pub struct Guard<'a> {
    /// Them.
    pub limits: Limits,
    scratch: &'a Scratch<'a>,
    saver: Option<Saver<'a>>,
    /// Time of the attempt that does not count.
    excused: Duration,
    moved: Instant,
    looked: Instant,
    look_after: Duration,
    made: (u64, i64, i64),
}

impl<'a> Guard<'a> {
    /// Of an attempt that begins now, and waited `excused` for a program to start. Its checkpoints are kept by `saver`.
    pub fn new(limits: Limits, scratch: &'a Scratch<'a>, saver: Option<Saver<'a>>, excused: Duration) -> Self {
        let now = Instant::now();
        Self { limits, scratch, saver, excused, moved: now, looked: now, look_after: TICK, made: (0, 0, 0) }
    }

    /// It is not stuck.
    pub fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Whether it has passed a limit. `position` is how far it is; who is `leaving` may stand still.
    pub fn beyond(&mut self, attempt: &Attempt, position: u64, leaving: bool) -> Result<Option<Limit>, Fault> {
        if self.over(attempt) == Some(Over::Attempt) {
            return Ok(Some(Limit::Deadline(seconds(self.limits.time.attempt))));
        }
        if self.looked.elapsed() < self.look_after {
            return Ok(None);
        }
        orphans::reap_ended();
        let began = Instant::now();
        if let Some(most) = self.limits.scratch {
            let bytes = self.scratch.bytes();
            if bytes > most {
                return Ok(Some(Limit::Scratch(bytes, most)));
            }
        }
        if self.limits.time.progress.is_some() {
            let made = self.scratch.output_so_far();
            if made != self.made {
                (self.made, self.moved) = (made, began);
            }
        }
        match self.saver.as_mut().map(|saver| saver.save_changed(position)).transpose()? {
            Some(Saved::TooLarge(bytes)) => return Ok(Some(Limit::Checkpoint(bytes))),
            Some(Saved::New) => self.moved(),
            Some(Saved::Nothing) | None => {}
        }
        // Looking at a million files must not be all that is done.
        self.look_after = TICK.max(began.elapsed() * 10);
        self.looked = Instant::now();
        let stuck = !leaving && self.over(attempt) == Some(Over::Progress);
        Ok(stuck.then(|| Limit::NoProgress(seconds(self.limits.time.progress))))
    }

    fn over(&self, attempt: &Attempt) -> Option<Over> {
        let age = attempt.age().saturating_sub(self.excused);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.limits.time.is_over(millis(age), 0, millis(age.saturating_sub(self.moved.elapsed())))
    }

    /// The worker leaves: what the program saved last is kept.
    pub fn save_last(&mut self, position: u64) {
        match self.saver.as_mut().map(|saver| saver.save_last(position)) {
            Some(Ok(Saved::TooLarge(bytes))) => {
                tracing::warn!(bytes, "left without a last checkpoint: it is too large");
            }
            Some(Err(error)) => tracing::warn!(error = logs::causes(&error), "left without a last checkpoint"),
            Some(Ok(Saved::Nothing | Saved::New)) | None => {}
        }
    }
}

fn seconds(millis: Option<u64>) -> u64 {
    millis.unwrap_or(0) / 1000
}
