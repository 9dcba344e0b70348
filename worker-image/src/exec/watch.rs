//! While a program runs: its stdin is fed, what it writes is taken, its limits and the orders to stop are kept. One thread
//! does it all and sleeps while there is nothing to do.

mod pipes;

use std::time::{Duration, Instant};

use hyperflow_api::message::FailureClass;
use hyperflow_core::program::ended::{Ended, Limit};
use rustix::process::Signal;

use super::{
    child::Child,
    feed::Feed,
    memory, orphans,
    saved::{Saved, Saver},
    scratch::Scratch,
    speech::Speech,
};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    logs,
    segments::Writer,
    work::Work,
};

/// How long output is waited for that somebody else may still write when the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often limits are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What an attempt may not exceed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of its age.
    pub deadline: Option<Duration>,
    /// Of time without progress.
    pub progress: Option<Duration>,
    /// Bytes of scratch space.
    pub scratch: Option<u64>,
    /// Time between SIGTERM and SIGKILL when the worker leaves.
    pub grace: Duration,
}

/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself. `out_of_memory`: the kernel has killed something meanwhile.
    Ended { ended: Ended, out_of_memory: bool },
    /// It was ended for a limit.
    Beyond(Limit),
    /// It was told to stop.
    Stopped,
}

/// A program that runs, and all that belongs to it.
pub struct Watch<'a> {
    /// The job.
    pub work: &'a Work,
    /// The attempt.
    pub attempt: &'a Attempt,
    /// The process.
    pub child: Child,
    /// What goes to its stdin.
    pub feed: Option<Feed<'a>>,
    /// Where its stdout goes.
    pub output: Option<&'a mut Writer>,
    /// Where its stderr goes.
    pub speech: Speech,
    /// Its files.
    pub scratch: &'a Scratch<'a>,
    /// Its checkpoints, if they are kept.
    pub saver: Option<Saver<'a>>,
    /// What it may not exceed.
    pub limits: Limits,
    /// What moves while it runs.
    pub state: State,
}

/// What moves while a program runs.
#[derive(Debug)]
pub struct State {
    /// Bytes that went to its stdin.
    pub fed: u64,
    /// What goes there next, from the byte `given` on.
    pending: Vec<u8>,
    given: usize,
    buffer: Vec<u8>,
    heard_all: bool,
    ended: Option<Instant>,
    told: Option<Instant>,
    moved: Instant,
    looked: Instant,
    look_after: Duration,
    made: (u64, i64, i64),
    killed_before: u64,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            fed: 0,
            pending: Vec::new(),
            given: 0,
            buffer: vec![0; pipes::CHUNK],
            heard_all: false,
            ended: None,
            told: None,
            moved: now,
            looked: now,
            look_after: TICK,
            made: (0, 0, 0),
            killed_before: memory::killed(),
        }
    }
}

impl Watch<'_> {
    /// Until the program has ended, by itself or not. Nothing of it runs afterwards.
    pub fn run(&mut self) -> Result<End, Fault> {
        self.set_nonblocking().map_err(|error| {
            let message = format!("cannot talk to the program: {error}");
            fault::try_again(FailureClass::WorkerLost, "NoProcess", message)
        })?;
        let end = loop {
            if self.must_stop() {
                break End::Stopped;
            }
            self.give()?;
            self.take()?;
            self.hear();
            if self.is_over() {
                break End::Ended { ended: Ended::Exited(0), out_of_memory: false };
            }
            if let Some(limit) = self.beyond()? {
                break End::Beyond(limit);
            }
            self.wait();
        };
        let ended = self.child.finish()?;
        // Nobody writes any more: what is still in the pipes is all there is.
        if end != End::Stopped {
            while self.take()? {}
        }
        while self.hear() {}
        self.speech.end();
        match end {
            End::Ended { .. } if self.state.told.is_some() => Ok(self.stopped()),
            End::Ended { .. } => {
                let out_of_memory = memory::killed() > self.state.killed_before;
                Ok(End::Ended { ended, out_of_memory })
            }
            End::Stopped => Ok(self.stopped()),
            end => Ok(end),
        }
    }

    /// The worker leaves, or the lease is fenced. What the program saved last is kept in the first case.
    fn stopped(&mut self) -> End {
        let position = self.state.fed;
        if let Some(saver) = self.saver.as_mut().filter(|_| self.attempt.wants_checkpoint()) {
            match saver.save_last(position) {
                Ok(Saved::TooLarge(bytes)) => tracing::warn!(bytes, "left without a last checkpoint: it is too large"),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = logs::causes(&error), "left without a last checkpoint");
                }
            }
        }
        End::Stopped
    }

    /// Keeps an order to stop. True when there is nothing more to wait for.
    fn must_stop(&mut self) -> bool {
        if self.attempt.go_on().is_ok() {
            return false;
        }
        if !self.attempt.wants_checkpoint() {
            return true;
        }
        match self.state.told {
            None => {
                self.state.told = Some(Instant::now());
                self.child.signal(Signal::TERM);
                false
            }
            Some(since) => since.elapsed() >= self.limits.grace,
        }
    }

    /// The program has ended, and what it wrote is taken, or was waited for long enough.
    fn is_over(&mut self) -> bool {
        if self.state.ended.is_none() && self.child.has_ended() {
            self.state.ended = Some(Instant::now());
            self.child.stdin = None;
        }
        let Some(since) = self.state.ended else { return false };
        self.child.stdout.is_none() || since.elapsed() >= LAST_WORDS
    }

    /// Whether it has passed a limit.
    fn beyond(&mut self) -> Result<Option<Limit>, Fault> {
        let Limits { deadline, progress, scratch, .. } = self.limits;
        if let Some(deadline) = deadline.filter(|deadline| self.attempt.age() >= *deadline) {
            return Ok(Some(Limit::Deadline(deadline.as_secs())));
        }
        if self.state.looked.elapsed() < self.state.look_after {
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
            if made != self.state.made {
                (self.state.made, self.state.moved) = (made, began);
            }
        }
        let position = self.state.fed;
        if let Some(saver) = self.saver.as_mut() {
            match saver.save_changed(position)? {
                Saved::TooLarge(bytes) => return Ok(Some(Limit::Checkpoint(bytes))),
                Saved::New => self.state.moved = Instant::now(),
                Saved::Nothing => {}
            }
        }
        // Looking at a million files must not be all that is done.
        self.state.look_after = TICK.max(began.elapsed() * 10);
        self.state.looked = Instant::now();
        let late = progress.filter(|progress| self.state.moved.elapsed() >= *progress && self.state.told.is_none());
        Ok(late.map(|late| Limit::NoProgress(late.as_secs())))
    }
}
