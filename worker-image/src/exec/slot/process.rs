//! A process that lives for many shards: what is said to it, how it answers, and what it may not exceed.

use std::{
    io,
    time::{Duration, Instant},
};

use hyperflow_api::message::Failure;
use hyperflow_core::program::{
    Program,
    ended::Ended,
    slot::{self, Asked, Heard, Order, Talk},
};
use tempfile::TempDir;

use super::{Seat, bounds::Bounds, no_talk, pipes::Pipes};
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

/// A process.
#[derive(Debug)]
pub struct Process {
    seat: Seat,
    pipes: Pipes,
    talk: Talk,
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
        let speech = Speech::marked(io::stderr(), slot_mark(seat.number));
        let (job, run, slot) = (work.brief.name.as_str(), work.brief.run, seat.number);
        let hello = Order::Hello { hyperflow: slot::VERSION, job, run, slot };
        let mut process = Self {
            seat,
            pipes: Pipes::new(child, ear, speech)?,
            talk: Talk::default(),
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
        self.pipes.speech.tail()
    }

    fn say(&mut self, order: &Order<'_>) -> Result<(), Fault> {
        self.pipes.say(order.line().map_err(|error| no_talk(&error.into()))?);
        Ok(())
    }

    /// Sends it a shard; what it writes to stderr is marked so from now on.
    pub fn ask(&mut self, asked: &Asked<'_>, mark: String) -> Result<(), Fault> {
        if !self.talk.send(asked.index) {
            return Err(no_talk(&io::Error::other("it is not waiting for a shard")));
        }
        self.pipes.speech.mark(mark);
        self.killed_before = memory::killed();
        self.say(&Order::Shard(Box::new(asked.clone())))
    }

    /// Its shard is answered: what it writes now is no shard's.
    pub fn rest(&mut self) {
        self.pipes.hear();
        self.pipes.speech.mark(slot_mark(self.seat.number));
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
                self.pipes.sleep();
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
                self.pipes.terminate();
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
                self.pipes.hear();
                return Ok(Some(task.program.not_ready(patience.as_secs(), self.pipes.speech.tail())));
            }
            Bounds::Start { .. } => None,
            Bounds::Shard(shard) => shard.beyond(task.attempt)?,
        };
        Ok(limit.map(|limit| {
            self.pipes.hear();
            task.program.beyond(limit, self.pipes.speech.tail())
        }))
    }

    /// What it does next, if it has done anything. It does not run any more when that is a failure.
    fn next(&mut self, program: &Program) -> Result<Option<End>, Fault> {
        // First, so that what was written before the end is read before it is believed that there is none.
        let ended = self.pipes.has_ended();
        self.pipes.give();
        self.pipes.hear();
        if let Some(heard) = self.pipes.line(|line| self.talk.hear(line)) {
            return match heard {
                Ok(heard) => Ok(Some(End::Said(heard))),
                Err(offence) => {
                    // Also it will not be taken for one that waits.
                    self.kill()?;
                    Ok(Some(End::Failed(Box::new(offence.failure()))))
                }
            };
        }
        if !ended && !self.pipes.is_mute() {
            return Ok(None);
        }
        let out_of_memory = memory::killed() > self.killed_before;
        let status = self.kill()?;
        let said = self.pipes.speech.tail();
        let failure = if ended { program.unanswered(status, out_of_memory, said) } else { program.mute(said) };
        Ok(Some(End::Failed(Box::new(failure))))
    }

    /// Ends it with everything that belongs to it, and hears what it said last.
    fn kill(&mut self) -> Result<Ended, Fault> {
        let ended = self.pipes.finish()?;
        self.talk = Talk::Starting;
        Ok(ended)
    }

    /// Tells it that there are no more shards.
    pub fn dismiss(&mut self) {
        self.pipes.close();
    }

    /// Waits for its end, but not longer.
    pub fn leave(&mut self, until: Instant) {
        self.pipes.leave(until);
        if let Err(error) = self.kill() {
            tracing::warn!(slot = self.slot(), error = logs::causes(&error), "a program may be left running");
        }
    }
}

fn slot_mark(slot: u32) -> String {
    format!("[slot {slot}] ")
}
