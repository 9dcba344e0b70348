//! A program of the user's, run for one shard: what it reads is put in its place, it is started and watched, and what it
//! made is staged.
//!
//! | what | where |
//! | --- | --- |
//! | the process | [`child`]; what it leaves behind: [`orphans`] |
//! | while it runs | [`watch`], with its stdin from a [`feed`], its stderr by an [`ear`] to [`speech`], checkpoints to [`saved`], within [`limits`] |
//! | what it is told | [`environment`], [`description`] |
//! | its input | [`inputs`], in an attempt's own [`scratch`] |
//! | what it made | [`results`] |
//! | whether the kernel killed it for its memory | [`memory`], read as [`kernel`] files are |
//! | one that lives for many shards | [`slot`] |
//! | the last command of the job | [`last`] |

mod child;
mod description;
pub mod ear;
mod environment;
mod feed;
pub mod find;
mod inputs;
mod kernel;
pub mod last;
mod limits;
mod memory;
mod orphans;
mod results;
mod saved;
pub mod scratch;
pub mod slot;
mod spawn;
mod speech;
mod watch;

use std::{io, path::Path, time::Duration};

use hyperflow_api::{
    exec::{InputMode, Lifetime, OutputMode},
    ids::ShardIndex,
    message::{FailureClass, Published},
};
use hyperflow_core::{
    checkpoint::Origin,
    plan::Shard,
    program::{Program, counted},
    publish::Content,
    source::Cut,
};

use self::{
    child::{Child, Start, Stdin, Stdout},
    environment::{About, Environment},
    feed::Feed,
    inputs::Placed,
    limits::{Guard, Limits},
    results::Results,
    saved::Saver,
    scratch::Scratch,
    speech::Speech,
    watch::{End, State, Watch},
};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    publish::{Publisher, Staged, Tree},
    segments::Writer,
    stream::Stream,
    work::Work,
};

/// What a program has made of a shard, staged.
#[derive(Debug)]
pub struct Made {
    result: MadeResult,
    /// What it says of the shard.
    pub text: Option<String>,
    /// Bytes of input that the worker read for it.
    pub read: u64,
}

#[derive(Debug)]
enum MadeResult {
    File(Box<Writer>),
    Tree(Tree),
}

impl Made {
    /// What is to be published.
    pub fn staged(&self) -> Staged<'_> {
        match &self.result {
            MadeResult::File(writer) => Staged::Files(vec![&**writer]),
            MadeResult::Tree(tree) => Staged::Tree(tree),
        }
    }

    /// Its size and checksum.
    pub fn content(&self) -> Content {
        match &self.result {
            MadeResult::File(writer) => {
                let segment = writer.segment();
                Content { bytes: segment.length, crc32c: segment.crc32c }
            }
            MadeResult::Tree(tree) => tree.content,
        }
    }
}

/// One shard and the program for it.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The job.
    pub work: &'a Work,
    /// The attempt.
    pub attempt: &'a Attempt,
    /// The program.
    pub program: &'a Program,
    /// Which shard.
    pub index: ShardIndex,
    /// What is in it.
    pub shard: &'a Shard,
    /// How the input was cut.
    pub cut: &'a Cut,
}

/// A run of the program that ended well, and what belongs to it.
struct Ran {
    said: Vec<u8>,
    read: u64,
    /// What it says of the shard.
    text: Option<String>,
}

/// Runs the program of a job that keeps nothing: its shards are known from the spec, and run at least once (P10).
pub fn run(work: &Work, attempt: &Attempt, program: &Program, index: ShardIndex) -> Result<Published, Fault> {
    let source = &work.job.source;
    let shard = counted::shard(source, index).ok_or_else(|| {
        let message = format!("shard {index} was leased, and `spec.source` does not have it");
        fault::try_again(FailureClass::WorkerLost, "PlanUnknown", message)
    })?;
    let task = Task { work, attempt, program, index, shard: &shard, cut: &source.cut };
    let scratch = task.scratch()?;
    task.run(&scratch, &[], None, None, None)?;
    Ok(Published { bytes: 0, crc32c: 0, found: false })
}

impl Task<'_> {
    /// Runs the program and stages what it made.
    pub fn produce(&self, to: &Publisher<'_>, origin: Origin<'_>) -> Result<Made, Fault> {
        let scratch = self.scratch()?;
        let resume = saved::find(to, origin, &scratch);
        let saver = Saver::new(to, origin, &scratch);
        let mut streamed = match self.program.output {
            OutputMode::Stdout | OutputMode::None => Some(results::begin(to, 0)?),
            OutputMode::File | OutputMode::Directory | OutputMode::Unknown => None,
        };
        let stdout = streamed.as_mut().filter(|_| self.program.output == OutputMode::Stdout);
        let ran = self.run(&scratch, to.names, resume.as_deref(), stdout, Some(saver))?;
        let results = Results { to, program: self.program, scratch: &scratch, said: &ran.said };
        let result = match streamed {
            Some(writer) => MadeResult::File(Box::new(writer)),
            None if self.program.output == OutputMode::Directory => MadeResult::Tree(results.tree()?),
            None => MadeResult::File(Box::new(results.file()?)),
        };
        Ok(Made { result, text: ran.text, read: ran.read })
    }

    /// A directory for the attempt. A program that lives on may still write to one when it is another's.
    fn scratch(&self) -> Result<Scratch<'_>, Fault> {
        match self.program.lifetime {
            Lifetime::Slot => Scratch::alone(),
            Lifetime::Shard | Lifetime::Unknown => Scratch::new(&self.work.scratch),
        }
    }

    /// Runs the program to its end, and says why if that is not a success.
    fn run<'a>(
        &'a self,
        scratch: &'a Scratch<'a>,
        names: &[String],
        resume: Option<&Path>,
        output: Option<&'a mut Writer>,
        saver: Option<Saver<'a>>,
    ) -> Result<Ran, Fault> {
        let Self { work, attempt, program, index, shard, cut } = *self;
        let input = Placed::place(work, attempt, program, (index, shard), cut, scratch)?;
        let about = About { work, attempt, index, shard, cut, input: &input, files: scratch, resume };
        description::write(&about, names)?;
        if program.lifetime == Lifetime::Slot {
            return slot::run(self, &about, saver);
        }
        let environment = Environment::of_shard(program, &about);
        let feed = match program.input {
            InputMode::Stdin if cut.is_of_files() => {
                Some(Feed::new(shard, Some(Stream::open(work, index, shard, cut)?)))
            }
            InputMode::Stdin => Some(Feed::new(shard, None)),
            _ => None,
        };
        let state = State::default();
        let mut ear = work.ears.take()?;
        let child = Child::start(&Start {
            program,
            command: environment.expand(&program.command),
            environment: &environment,
            found: &work.found,
            mark: Some(attempt.grant().epoch.to_string()),
            stdin: if feed.is_some() { Stdin::Pipe } else { Stdin::Nothing },
            stdout: if output.is_some() { Stdout::Pipe } else { Stdout::Stderr },
            stderr: &ear,
        })?;
        let speech = Speech::new(io::stderr(), index, attempt.grant().attempt);
        let guard = Guard::new(Limits::of(work), scratch, saver, Duration::ZERO);
        let mut watch = Watch { work, attempt, child, feed, output, ear: &mut ear, speech, guard, state };
        let end = watch.run()?;
        let (said, fed) = (watch.speech.tail().to_vec(), watch.state.fed);
        if watch.child.alone {
            drop(watch);
            work.ears.keep(ear);
        }
        let failure = match end {
            End::Stopped => return Err(Fault::Stopped),
            End::Beyond(limit) => Some(program.beyond(limit, &said)),
            End::Ended { ended, out_of_memory } => program.ended(ended, out_of_memory, &said),
        };
        if let Some(failure) = failure {
            // What was made of input that has changed is not the program's fault.
            input.unchanged(work)?;
            return Err(Fault::Refused(Box::new(failure)));
        }
        input.unchanged(work)?;
        let text = results::text(program, scratch, &said)?;
        Ok(Ran { said, read: fed + input.copied(), text })
    }
}
