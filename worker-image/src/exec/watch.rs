//! While a program runs: its stdin is fed, what it writes is taken, its limits and the orders to stop are kept. One thread
//! does it all and sleeps while there is nothing to do.

use std::{
    io::{ErrorKind, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use hyperflow_core::program::ended::{Ended, Limit};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
    process::Signal,
};

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
    segments::Writer,
    work::Work,
};

/// Longest sleep before an attempt looks whether it was told to stop.
const NAP: i64 = 100_000_000;
/// The same where the kernel does not tell that a process has ended.
const SHORT_NAP: i64 = 2_000_000;
/// How long output is waited for that somebody else may still write when the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often limits are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Bytes read from a pipe at a time: as many as it holds.
const CHUNK: usize = 64 << 10;
/// Chunks of one pipe before the others have their turn.
const TURN: usize = 16;

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
            buffer: vec![0; CHUNK],
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
            fault::try_again(hyperflow_api::message::FailureClass::WorkerLost, "NoProcess", message)
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
                    tracing::warn!(error = crate::logs::causes(&error), "left without a last checkpoint");
                }
            }
        }
        End::Stopped
    }

    fn set_nonblocking(&self) -> Result<(), Errno> {
        let Child { stdin, stdout, stderr, .. } = &self.child;
        ioctl_fionbio(stderr, true)?;
        stdin.as_ref().map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))?;
        stdout.as_ref().map_or(Ok(()), |stdout| ioctl_fionbio(stdout, true))
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

    /// Feeds stdin as far as the program reads.
    fn give(&mut self) -> Result<(), Fault> {
        if self.state.told.is_some() || self.state.ended.is_some() {
            return Ok(());
        }
        for _ in 0..TURN {
            let (Some(stdin), Some(feed)) = (&mut self.child.stdin, &mut self.feed) else { return Ok(()) };
            let State { pending, given, fed, moved, .. } = &mut self.state;
            if *given == pending.len() {
                feed.next(pending, self.work.chunk())?;
                *given = 0;
                match self.work.pace(pending.len() as u64, self.attempt) {
                    // The loop sees to it.
                    Err(Fault::Stopped) => return Ok(()),
                    paced => paced?,
                }
                self.work.metrics.bytes_read.inc_by(pending.len() as u64);
                if pending.is_empty() {
                    self.child.stdin = None;
                    return Ok(());
                }
            }
            match stdin.write(&pending[*given..]) {
                Ok(written) => {
                    (*given, *fed, *moved) = (*given + written, *fed + written as u64, Instant::now());
                    self.attempt.progressed(*fed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It does not read all of it, which is its own affair.
                Err(_) => self.child.stdin = None,
            }
        }
        Ok(())
    }

    /// Takes what it has written to stdout; false when there is no more just now.
    fn take(&mut self) -> Result<bool, Fault> {
        for _ in 0..TURN {
            let (Some(stdout), Some(output)) = (&mut self.child.stdout, &mut self.output) else { return Ok(false) };
            match stdout.read(&mut self.state.buffer) {
                Ok(0) => self.child.stdout = None,
                Ok(length) => {
                    output.append(&self.state.buffer[..length])?;
                    self.state.moved = Instant::now();
                    self.work.metrics.bytes_written.inc_by(length as u64);
                    match self.work.pace(length as u64, self.attempt) {
                        Err(Fault::Stopped) => return Ok(false),
                        paced => paced?,
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes what it has written to stderr; false when there is no more just now.
    fn hear(&mut self) -> bool {
        for _ in 0..TURN {
            if self.state.heard_all {
                return false;
            }
            match self.child.stderr.read(&mut self.state.buffer) {
                Ok(0) => self.state.heard_all = true,
                Ok(length) => self.speech.hear(&self.state.buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
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

    /// Sleeps until something can be done.
    fn wait(&self) {
        let State { ended, heard_all, told, .. } = &self.state;
        let mut wanted = Vec::with_capacity(4);
        if !heard_all {
            wanted.push(PollFd::new(&self.child.stderr, PollFlags::IN));
        }
        if let Some(stdout) = &self.child.stdout {
            wanted.push(PollFd::new(stdout, PollFlags::IN));
        }
        if let Some(stdin) = self.child.stdin.as_ref().filter(|_| told.is_none()) {
            wanted.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let ending = self.child.ending().filter(|_| ended.is_none());
        if let Some(ending) = &ending {
            wanted.push(PollFd::from_borrowed_fd(ending.as_fd(), PollFlags::IN));
        }
        let nap = if ending.is_none() { SHORT_NAP } else { NAP };
        // An interrupted sleep is one that is over.
        let _ = poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: nap }));
    }
}
