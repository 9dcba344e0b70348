//! What goes through the pipes of a program, and the sleep until something can.

use std::{
    io::{ErrorKind, Read, Write},
    os::fd::AsFd,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
};

use super::{State, Watch};
use crate::{exec::child::Child, fault::Fault};

/// Longest sleep before an attempt looks whether it was told to stop.
const NAP: i64 = 100_000_000;
/// The same where the kernel does not tell that a process has ended.
const SHORT_NAP: i64 = 2_000_000;
/// Bytes read from a pipe at a time: as many as it holds.
const CHUNK: usize = 64 << 10;
/// The same until a program has written so much at once. Most write less.
pub(super) const FIRST_CHUNK: usize = 4 << 10;
/// Chunks of one pipe before the others have their turn.
const TURN: usize = 16;

impl State {
    /// So many bytes were read at once: where there may be more, more are read at once.
    fn enlarge(&mut self, length: usize) {
        if length == self.buffer.len() && length < CHUNK {
            self.buffer.resize(CHUNK, 0);
        }
    }
}

impl Watch<'_> {
    /// Reading and writing never wait.
    pub(super) fn set_nonblocking(&self) -> Result<(), Errno> {
        let Child { stdin, stdout, .. } = &self.child;
        stdin.as_ref().map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))?;
        stdout.as_ref().map_or(Ok(()), |stdout| ioctl_fionbio(stdout, true))
    }

    /// Feeds stdin as far as the program reads.
    pub(super) fn give(&mut self) -> Result<(), Fault> {
        if self.state.told.is_some() || self.state.ended.is_some() {
            return Ok(());
        }
        for _ in 0..TURN {
            let (Some(stdin), Some(feed)) = (&mut self.child.stdin, &mut self.feed) else { return Ok(()) };
            let State { pending, given, fed, .. } = &mut self.state;
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
                    (*given, *fed) = (*given + written, *fed + written as u64);
                    self.guard.moved();
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
    pub(super) fn take(&mut self) -> Result<bool, Fault> {
        for _ in 0..TURN {
            let (Some(stdout), Some(output)) = (&mut self.child.stdout, &mut self.output) else { return Ok(false) };
            match stdout.read(&mut self.state.buffer) {
                Ok(0) => self.child.stdout = None,
                Ok(length) => {
                    output.append(&self.state.buffer[..length])?;
                    self.state.enlarge(length);
                    self.guard.moved();
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
    pub(super) fn hear(&mut self) -> bool {
        for _ in 0..TURN {
            match self.ear.hear(&mut self.state.buffer) {
                Ok(length) => {
                    self.speech.hear(&self.state.buffer[..length]);
                    self.state.enlarge(length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Sleeps until something can be done.
    pub(super) fn wait(&mut self) {
        let State { ended, told, .. } = &self.state;
        let mut wanted = Vec::with_capacity(4);
        wanted.push(PollFd::new(&*self.ear, PollFlags::IN));
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
        let woken = poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: nap })).is_ok_and(|ready| ready > 0);
        let told = ending.is_some() && wanted.last().is_some_and(|ending| !ending.revents().is_empty());
        if woken && told {
            self.state.seen_end = true;
        }
    }
}
