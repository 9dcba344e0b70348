//! A process that lives for many shards: what goes to it, what comes from it, and what it may not exceed.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use hyperflow_api::message::Failure;
use hyperflow_core::program::{
    Program,
    ended::Ended,
    slot::{self, Asked, Heard, Order, Talk},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
    process::Signal,
};
use tempfile::TempDir;

use super::{Seat, bounds::Bounds, lines::Lines, no_talk};
use crate::{
    attempt::Attempt,
    exec::{
        Task,
        child::{Child, Start, Stdin, Stdout},
        ear::Ear,
        environment::Environment,
        memory,
        speech::Speech,
    },
    fault::{self, Fault},
    logs,
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

/// A process.
#[derive(Debug)]
pub struct Process {
    seat: Seat,
    child: Child,
    ear: Ear,
    talk: Talk,
    lines: Lines,
    speech: Speech,
    /// What goes to its stdin next.
    pending: Vec<u8>,
    buffer: Vec<u8>,
    /// When it closed its stdin or its stdout: it cannot be talked to any more.
    mute: Option<Instant>,
    killed_before: u64,
    /// Its TMPDIR.
    _folder: TempDir,
}

/// How it came to an end: what it was asked for, or itself.
#[derive(Debug)]
pub enum End {
    /// It answered.
    Said(Heard),
    /// It does not run any more, and this is why.
    Failed(Box<Failure>),
    /// The attempt was told to stop, and it does not run any more.
    Stopped,
}

impl Process {
    /// Starts one, and greets it.
    pub(super) fn start(task: &Task<'_>, seat: Seat) -> Result<Self, Fault> {
        let Task { work, program, .. } = *task;
        let temporary = std::env::temp_dir();
        let prefix = format!("slot-{}-", seat.number);
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(&temporary);
        let folder = made.map_err(fault::output("create a folder in", &temporary))?;
        let environment = Environment::of_slot(work, folder.path());
        let ear = Ear::new()?;
        let child = Child::start(&Start {
            program,
            command: environment.expand(&program.command),
            environment: &environment,
            found: &work.found,
            mark: None,
            stdin: Stdin::Pipe,
            stdout: Stdout::Pipe,
            stderr: &ear,
        })?;
        let Child { stdin, stdout, .. } = &child;
        let set = stdin
            .as_ref()
            .map_or(Ok(()), |stdin| ioctl_fionbio(stdin, true))
            .and_then(|()| stdout.as_ref().map_or(Ok(()), |stdout| ioctl_fionbio(stdout, true)));
        set.map_err(|error| no_talk(&error.into()))?;
        let speech = Speech::marked(io::stderr(), slot_mark(seat.number));
        let (job, run, slot) = (work.brief.name.as_str(), work.brief.run, seat.number);
        let hello = Order::Hello { hyperflow: slot::VERSION, job, run, slot };
        let mut process = Self {
            seat,
            child,
            ear,
            talk: Talk::default(),
            lines: Lines::default(),
            speech,
            pending: Vec::new(),
            buffer: vec![0; CHUNK],
            mute: None,
            killed_before: memory::killed(),
            _folder: folder,
        };
        process.say(&hello)?;
        Ok(process)
    }

    /// Which slot it is in.
    pub fn slot(&self) -> u32 {
        self.seat.number
    }

    /// How far it is with us.
    pub fn talk(&self) -> Talk {
        self.talk
    }

    /// The last of what it wrote to stderr for its shard.
    pub fn said(&self) -> &[u8] {
        self.speech.tail()
    }

    fn say(&mut self, order: &Order<'_>) -> Result<(), Fault> {
        self.pending.extend(order.line().map_err(|error| no_talk(&error.into()))?);
        Ok(())
    }

    /// Sends it a shard; what it writes to stderr is marked so from now on.
    pub fn ask(&mut self, asked: &Asked<'_>, mark: String) -> Result<(), Fault> {
        if !self.talk.send(asked.index) {
            return Err(no_talk(&io::Error::other("it is not waiting for a shard")));
        }
        self.speech.mark(mark);
        self.killed_before = memory::killed();
        self.say(&Order::Shard(Box::new(asked.clone())))
    }

    /// Its shard is answered: what it writes now is no shard's.
    pub fn rest(&mut self) {
        while self.hear_stderr() {}
        self.speech.mark(slot_mark(self.seat.number));
    }

    /// Whether one that had nothing to do can still be sent a shard: if not, why.
    pub fn look(&mut self, program: &Program) -> Result<Option<Failure>, Fault> {
        Ok(match self.next(program)? {
            None => None,
            Some(End::Failed(failure)) => Some(*failure),
            // Whoever waits for a shard may say nothing, and what is said then is an offence.
            Some(End::Said(_) | End::Stopped) => None,
        })
    }

    /// Until it answers, or does not run any more.
    pub fn hear(&mut self, task: &Task<'_>, mut bounds: Bounds<'_>) -> Result<End, Fault> {
        let Task { attempt, program, .. } = *task;
        let mut told = None;
        loop {
            if attempt.go_on().is_err() && self.must_stop(attempt, &mut told, bounds.grace()) {
                return self.stopped(attempt, &mut bounds);
            }
            let news = self.next(program)?;
            let heard = news.is_some();
            match (news, &mut bounds) {
                (Some(End::Said(Heard::Progress(done))), Bounds::Shard(shard)) => shard.advance(attempt, done),
                (Some(_), _) if told.is_some() => return self.stopped(attempt, &mut bounds),
                (Some(end), _) => return Ok(end),
                (None, _) => {}
            }
            if told.is_none()
                && let Some(failure) = self.beyond(task, &mut bounds)?
            {
                self.kill()?;
                return Ok(End::Failed(Box::new(failure)));
            }
            if !heard {
                self.sleep();
            }
        }
    }

    /// Keeps an order to stop. True when there is nothing more to wait for.
    fn must_stop(&self, attempt: &Attempt, told: &mut Option<Instant>, grace: Duration) -> bool {
        if !attempt.wants_checkpoint() {
            return true;
        }
        match told {
            None => {
                *told = Some(Instant::now());
                self.child.signal(Signal::TERM);
                false
            }
            Some(since) => since.elapsed() >= grace,
        }
    }

    /// It cannot be told to leave a shard alone, so it is ended with it.
    fn stopped(&mut self, attempt: &Attempt, bounds: &mut Bounds<'_>) -> Result<End, Fault> {
        self.kill()?;
        if let (Bounds::Shard(shard), true) = (bounds, attempt.wants_checkpoint()) {
            shard.save_last();
        }
        Ok(End::Stopped)
    }

    fn beyond(&mut self, task: &Task<'_>, bounds: &mut Bounds<'_>) -> Result<Option<Failure>, Fault> {
        let limit = match bounds {
            Bounds::Start { since, patience, .. } if since.elapsed() >= *patience => {
                while self.hear_stderr() {}
                return Ok(Some(task.program.not_ready(patience.as_secs(), self.speech.tail())));
            }
            Bounds::Start { .. } => None,
            Bounds::Shard(shard) => shard.beyond(task.attempt)?,
        };
        Ok(limit.map(|limit| {
            while self.hear_stderr() {}
            task.program.beyond(limit, self.speech.tail())
        }))
    }

    /// What it does next, if it has done anything. It does not run any more when that is a failure.
    fn next(&mut self, program: &Program) -> Result<Option<End>, Fault> {
        // First, so that what was written before the end is read before it is believed that there is none.
        let ended = self.child.has_ended();
        self.give();
        while self.hear_stderr() {}
        loop {
            if let Some(line) = self.lines.next() {
                return match self.talk.hear(line) {
                    Ok(heard) => Ok(Some(End::Said(heard))),
                    Err(offence) => {
                        // Also it will not be taken for one that waits.
                        self.kill()?;
                        Ok(Some(End::Failed(Box::new(offence.failure()))))
                    }
                };
            }
            if !self.read() {
                break;
            }
        }
        let silent = self.mute.is_some_and(|since| since.elapsed() >= LAST_WORDS);
        if !ended && !silent {
            return Ok(None);
        }
        let out_of_memory = memory::killed() > self.killed_before;
        let status = self.kill()?;
        let said = self.speech.tail();
        let failure = if ended { program.unanswered(status, out_of_memory, said) } else { program.mute(said) };
        Ok(Some(End::Failed(Box::new(failure))))
    }

    /// Gives it what it reads.
    fn give(&mut self) {
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

    /// Takes what it has written to stderr; false when there is no more just now.
    fn hear_stderr(&mut self) -> bool {
        match self.ear.hear(&mut self.buffer) {
            Ok(length) => {
                self.speech.hear(&self.buffer[..length]);
                // One that writes without end is heard again at the next turn.
                length < self.buffer.len()
            }
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    /// Ends it with everything that belongs to it, and hears what it said last.
    fn kill(&mut self) -> Result<Ended, Fault> {
        let ended = self.child.finish()?;
        self.talk = Talk::Starting;
        while self.hear_stderr() {}
        self.speech.end();
        Ok(ended)
    }

    /// Tells it that there are no more shards.
    pub fn dismiss(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for its end, but not longer.
    pub fn leave(&mut self, until: Instant) {
        while !self.child.has_ended() && Instant::now() < until {
            while self.hear_stderr() {}
            while self.read() {}
            thread::sleep(REST);
        }
        if let Err(error) = self.kill() {
            tracing::warn!(slot = self.slot(), error = logs::causes(&error), "a program may be left running");
        }
    }

    /// Sleeps until something can be done.
    fn sleep(&self) {
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

fn slot_mark(slot: u32) -> String {
    format!("[slot {slot}] ")
}
