//! What goes to a process that lives for many shards, and what comes from it.

use std::{
    io::{ErrorKind, Read, Write},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use hyperflow_core::program::ended::Ended;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
    process::Signal,
};

use super::{lines::Lines, no_talk};
use crate::{
    exec::{child::Child, ear::Ear, speech::Speech},
    fault::Fault,
};

/// Longest sleep before an attempt looks whether it was told to stop.
const NAP: i64 = 100_000_000;
/// The same where the kernel does not tell that a process has ended.
const SHORT_NAP: i64 = 2_000_000;
/// How long the end of a process is waited for that has closed its stdin or its stdout.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Rest between two looks at whether a process has ended.
const REST: Duration = Duration::from_millis(5);
/// Bytes read from a pipe at a time: as many as it holds.
const CHUNK: usize = 64 << 10;

/// A process with its stdin, stdout and stderr. Nothing here waits for it, but for [`Pipes::sleep`] and [`Pipes::leave`].
#[derive(Debug)]
pub struct Pipes {
    child: Child,
    ear: Ear,
    lines: Lines,
    /// What it wrote to stderr.
    pub speech: Speech,
    /// What goes to its stdin next.
    pending: Vec<u8>,
    buffer: Vec<u8>,
    /// When it closed its stdin or its stdout: it cannot be talked to any more.
    mute: Option<Instant>,
}

impl Pipes {
    /// Those of a process that was just started, and whose stderr is `ear`.
    pub fn new(child: Child, ear: Ear, speech: Speech) -> Result<Self, Fault> {
        let Child { stdin, stdout, .. } = &child;
        let set = stdin
            .as_ref()
            .map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))
            .and_then(|()| stdout.as_ref().map_or(Ok(()), |stdout| ioctl_fionbio(stdout, true)));
        set.map_err(|error| no_talk(&error.into()))?;
        let (lines, pending, buffer) = (Lines::default(), Vec::new(), vec![0; CHUNK]);
        Ok(Self { child, ear, lines, speech, pending, buffer, mute: None })
    }

    /// Adds to what goes to its stdin.
    pub fn say(&mut self, line: Vec<u8>) {
        self.pending.extend(line);
    }

    /// Gives it what it takes.
    pub fn give(&mut self) {
        while let Some(stdin) = self.child.stdin.as_mut().filter(|_| !self.pending.is_empty()) {
            match stdin.write(&self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.child.stdin = None;
                    self.mute.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// Takes the next line that it has said, if it has said one.
    pub fn line<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(take(line));
            }
            if !self.read() {
                return None;
            }
        }
    }

    /// Reads more of its stdout; false when there is no more just now.
    fn read(&mut self) -> bool {
        let Some(stdout) = &mut self.child.stdout else { return false };
        match stdout.read(&mut self.buffer) {
            Ok(0) => {
                self.child.stdout = None;
                self.lines.end();
                self.mute.get_or_insert_with(Instant::now);
                true
            }
            Ok(length) => {
                self.lines.push(&self.buffer[..length]);
                true
            }
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    /// Takes all that it has written to stderr.
    pub fn hear(&mut self) {
        while self.hear_more() {}
    }

    /// False when there is no more just now.
    fn hear_more(&mut self) -> bool {
        match self.ear.hear(&mut self.buffer) {
            Ok(length) => {
                self.speech.hear(&self.buffer[..length]);
                // One that writes without end is heard again at the next turn.
                length < self.buffer.len()
            }
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    /// It has closed its stdin or its stdout, and did not end with that.
    pub fn is_mute(&self) -> bool {
        self.mute.is_some_and(|since| since.elapsed() >= LAST_WORDS)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.child.has_ended()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.child.signal(Signal::TERM);
    }

    /// Closes its stdin: there are no more shards.
    pub fn close(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for its end, but not longer. What it says to us is of no interest any more.
    pub fn leave(&mut self, until: Instant) {
        while !self.child.has_ended() && Instant::now() < until {
            self.hear();
            while self.read() {}
            thread::sleep(REST);
        }
    }

    /// Ends it with everything that belongs to it, and hears what it said last.
    pub fn finish(&mut self) -> Result<Ended, Fault> {
        let ended = self.child.finish()?;
        self.hear();
        self.speech.end();
        Ok(ended)
    }

    /// Sleeps until something can be done.
    pub fn sleep(&self) {
        let mut wanted = Vec::with_capacity(4);
        wanted.push(PollFd::new(&self.ear, PollFlags::IN));
        if let Some(stdout) = &self.child.stdout {
            wanted.push(PollFd::new(stdout, PollFlags::IN));
        }
        if let Some(stdin) = self.child.stdin.as_ref().filter(|_| !self.pending.is_empty()) {
            wanted.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let ending = self.child.ending();
        if let Some(ending) = &ending {
            wanted.push(PollFd::from_borrowed_fd(ending.as_fd(), PollFlags::IN));
        }
        let nap = if ending.is_none() || self.mute.is_some() { SHORT_NAP } else { NAP };
        // An interrupted sleep is one that is over.
        let _ = poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: nap }));
    }
}
