//! Programs that live for many shards: a process for each slot of the worker, started when a shard first needs it, kept for
//! the next one, and replaced when it has ended or is not believed any more. What is said is decided in
//! [`hyperflow_core::program::slot`].

mod bounds;
mod lines;
mod pipes;
mod process;

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hyperflow_api::{exec::InputMode, exec::OutputMode, message::Failure};
use hyperflow_core::{
    program::{
        ended::{Left, RESULT_BYTES},
        slot::{Asked, Heard, START_SECONDS, Starts, Talk},
    },
    source::Cut,
};

use self::{
    bounds::Bounds,
    process::{End, Process},
};
use super::{
    Ran, Task,
    environment::About,
    limits::{Guard, Limits},
    results,
    saved::Saver,
};
use crate::{
    fault::{self, Fault},
    work::locked,
};

/// How long processes may take to end once their stdin is closed.
const FAREWELL: Duration = Duration::from_secs(5);

/// The processes of a worker that have no shard.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<Vec<Process>>,
    starts: Mutex<Starts>,
    seats: Arc<Mutex<BTreeSet<u32>>>,
}

/// The number of a slot, while a process has it.
#[derive(Debug)]
struct Seat {
    number: u32,
    seats: Arc<Mutex<BTreeSet<u32>>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        locked(&self.seats).remove(&self.number);
    }
}

impl Pool {
    /// A process that waits for a shard: one that is there, or a new one. Attempts are as many as slots, so no more
    /// processes than those are made.
    fn take(&self, task: &Task<'_>) -> Result<Process, Fault> {
        while let Some(mut process) = self.pop() {
            match process.look(task.program)? {
                None => return Ok(process),
                Some(Failure { reason, message, .. }) => {
                    tracing::warn!(slot = process.slot(), reason, message, "a program without a shard is replaced");
                }
            }
        }
        loop {
            let mut process = Process::start(task, self.seat())?;
            let fault = match self.ready(task, &mut process) {
                Ok(()) => {
                    locked(&self.starts).succeeded();
                    return Ok(process);
                }
                Err(Fault::Refused(failure)) => failure,
                Err(fault) => return Err(fault),
            };
            if !locked(&self.starts).failed() {
                return Err(Fault::Refused(fault));
            }
            let Failure { reason, message, .. } = *fault;
            tracing::warn!(slot = process.slot(), reason, message, "the program is started again: it was never ready");
        }
    }

    fn ready(&self, task: &Task<'_>, process: &mut Process) -> Result<(), Fault> {
        let limits = Limits::of(task.work);
        let patience = limits.patience().unwrap_or(Duration::from_secs(START_SECONDS.into()));
        let bounds = Bounds::Start { since: Instant::now(), patience, grace: limits.grace };
        match process.hear(task, bounds)? {
            End::Said(_) => Ok(()),
            End::Stopped => Err(Fault::Stopped),
            End::Failed(failure) => Err(Fault::Refused(failure)),
        }
    }

    /// Of those that are idle, the one of the lowest slot: the others' models may be paged out.
    fn pop(&self) -> Option<Process> {
        let mut idle = locked(&self.idle);
        let lowest = (0..idle.len()).min_by_key(|&place| idle[place].slot())?;
        Some(idle.swap_remove(lowest))
    }

    fn seat(&self) -> Seat {
        let mut taken = locked(&self.seats);
        let number = (0..).find(|number| !taken.contains(number)).unwrap_or_default();
        taken.insert(number);
        Seat { number, seats: self.seats.clone() }
    }

    /// So many starts have failed before.
    #[cfg(test)]
    pub fn started(&self, starts: Starts) {
        *locked(&self.starts) = starts;
    }

    /// There are no more shards: closes the stdin of all that are idle, and kills those that do not end by that.
    pub fn end(&self) {
        let mut idle = std::mem::take(&mut *locked(&self.idle));
        let until = Instant::now() + FAREWELL;
        idle.iter_mut().for_each(Process::dismiss);
        for process in &mut idle {
            process.leave(until);
        }
    }
}

/// Has a process do a shard.
pub(super) fn run(task: &Task<'_>, about: &About<'_>, saver: Option<Saver<'_>>) -> Result<Ran, Fault> {
    let Task { work, attempt, program, index, shard, .. } = *task;
    let asked_at = attempt.age();
    let mut process = work.slots.take(task)?;
    // A program may start as slowly as it likes: that is not its shard's time.
    let excused = attempt.age().saturating_sub(asked_at);
    let mark = format!("[{index:06} a{}] ", attempt.grant().attempt);
    let epoch = attempt.grant().epoch.to_string();
    let id = shard.id();
    let texts = Texts::new(about);
    process.ask(&texts.asked(about, &id, &epoch), mark)?;
    let guard = Guard::new(Limits::of(work), about.files, saver, excused);
    let bounds = Bounds::shard(guard, shard.bytes());
    let end = process.hear(task, bounds)?;
    let said = process.said().to_vec();
    let answer = match end {
        End::Said(Heard::Done(text)) => Ok(text),
        End::Said(Heard::Failed(failure)) => Err(Box::new(failure)),
        // It says nothing else while it has a shard.
        End::Said(Heard::Ready | Heard::Progress(_)) | End::Stopped => return Err(Fault::Stopped),
        End::Failed(failure) => Err(failure),
    };
    if process.talk() == Talk::Idle {
        process.rest();
        locked(&work.slots.idle).push(process);
    } else {
        drop(process);
    }
    // What was made of input that has changed is not the program's fault.
    about.input.unchanged(work)?;
    let text = answer.map_err(Fault::Refused)?;
    if let Some(bytes) = text.as_ref().map(|text| text.len() as u64).filter(|bytes| *bytes > RESULT_BYTES) {
        return Err(Fault::Refused(Box::new(program.left(&Left::LargeResult(bytes), &said))));
    }
    let text = match text {
        Some(text) => Some(text),
        None => results::text(program, about.files, &said)?,
    };
    Ok(Ran { said, read: about.input.copied(), text })
}

/// Paths as JSON can say them.
struct Texts {
    input: Option<String>,
    output: String,
    checkpoint: String,
    resume: Option<String>,
    result: String,
    tmp: String,
    shard: String,
}

impl Texts {
    fn new(about: &About<'_>) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let files = about.files;
        Self {
            input: about.input.path().map(text),
            output: text(&files.output()),
            checkpoint: text(&files.checkpoint()),
            resume: about.resume.map(text),
            result: text(&files.result()),
            tmp: text(&files.temporary()),
            shard: text(&files.description()),
        }
    }

    fn asked<'a>(&'a self, about: &'a About<'_>, id: &'a str, epoch: &'a str) -> Asked<'a> {
        let About { work, attempt, index, shard, cut, input, .. } = about;
        let (mode, output) = match &work.job.task {
            hyperflow_core::job::Task::Exec(program) => (program.input, program.output),
            _ => (InputMode::None, OutputMode::None),
        };
        let range = Some(input.range()).filter(|_| mode == InputMode::Range);
        let plain = mode == InputMode::None;
        Asked {
            index: *index,
            id,
            attempt: attempt.grant().attempt,
            epoch,
            input: self.input.as_deref(),
            input_offset: range.as_ref().map(|range| range.start),
            input_length: range.map(|range| range.end - range.start),
            item: shard.items.first().map(String::as_str).filter(|_| plain && matches!(cut, Cut::Items { .. })),
            numbers: shard.numbers.filter(|_| plain),
            output: Some(self.output.as_str()).filter(|_| matches!(output, OutputMode::File | OutputMode::Directory)),
            checkpoint: &self.checkpoint,
            resume_from: self.resume.as_deref(),
            result: &self.result,
            tmp: &self.tmp,
            shard: &self.shard,
        }
    }
}

/// The system cannot talk to a process: nothing that the program or its shard could help.
fn no_talk(error: &io::Error) -> Fault {
    let message = format!("cannot talk to the program: {error}");
    fault::try_again(hyperflow_api::message::FailureClass::WorkerLost, "NoProcess", message)
}
