//! While a program runs: its stdin is fed, what it writes is taken, its limits and the orders to stop are kept. One thread
//! does it all and sleeps while there is nothing to do.

mod pipes;

use std::time::{Duration, Instant};

use hyperflow_api::message::FailureClass;
use hyperflow_core::program::ended::{Ended, Limit};
use rustix::process::Signal;

use super::{child::Child, ear::Ear, feed::Feed, limits::Guard, memory, speech::Speech};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    segments::Writer,
    work::Work,
};

/// How long output is waited for that somebody else may still write when the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself. `out_of_memory`: it did not end well, and the kernel has killed something meanwhile.
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
    /// What it writes to stderr.
    pub ear: &'a mut Ear,
    /// Where that goes.
    pub speech: Speech,
    /// What it may not exceed, and its checkpoints.
    pub guard: Guard<'a>,
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
    /// The kernel has told that the process has ended.
    seen_end: bool,
    ended: Option<Instant>,
    told: Option<Instant>,
    killed_before: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            fed: 0,
            pending: Vec::new(),
            given: 0,
            buffer: vec![0; pipes::FIRST_CHUNK],
            seen_end: false,
            ended: None,
            told: None,
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
        if self.attempt.go_on().is_ok() {
            // It has just begun: there is nothing yet to be taken.
            self.give()?;
            self.wait();
        }
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
            if let Some(limit) = self.guard.beyond(self.attempt, self.state.fed, self.state.told.is_some())? {
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
                let out_of_memory = ended != Ended::Exited(0) && memory::killed() > self.state.killed_before;
                Ok(End::Ended { ended, out_of_memory })
            }
            End::Stopped => Ok(self.stopped()),
            end => Ok(end),
        }
    }

    /// The worker leaves, or the lease is fenced. What the program saved last is kept in the first case.
    fn stopped(&mut self) -> End {
        if self.attempt.wants_checkpoint() {
            self.guard.save_last(self.state.fed);
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
            Some(since) => since.elapsed() >= self.guard.limits.grace,
        }
    }

    /// The program has ended, and what it wrote is taken, or was waited for long enough.
    fn is_over(&mut self) -> bool {
        // Where the kernel tells it, it need not be asked as well.
        let has_ended = self.state.seen_end || (self.child.ending().is_none() && self.child.has_ended());
        if self.state.ended.is_none() && has_ended {
            self.state.ended = Some(Instant::now());
            self.child.stdin = None;
        }
        let Some(since) = self.state.ended else { return false };
        self.child.stdout.is_none() || since.elapsed() >= LAST_WORDS
    }
}
