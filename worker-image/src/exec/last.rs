//! The user's last command: run once more than there are shards, over the report.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use hyperflow_api::exec::{FinallyOutput, OutputMode};
use hyperflow_core::{
    limits::AttemptLimits,
    program::{Finally, Program, ended::Left},
};
use rustix::fs::OFlags;

use super::{
    child::{Child, Start, Stdin, Stdout},
    ear::Ear,
    environment::Environment,
    limits::{Guard, Limits},
    scratch::Scratch,
    speech::Speech,
    watch::{End, State, Watch},
};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    work::Work,
};

/// The command, and what it is run over.
pub struct Last<'a> {
    /// The job.
    pub work: &'a Work,
    /// The attempt.
    pub attempt: &'a Attempt,
    /// As the job says it.
    pub finally: &'a Finally,
    /// The report.
    pub report: &'a Path,
    program: Program,
    scratch: Scratch<'a>,
}

impl<'a> Last<'a> {
    /// Prepares it. It runs where the shards' `program` does, and succeeds with exit code 0.
    pub fn new(
        work: &'a Work,
        attempt: &'a Attempt,
        program: &Program,
        finally: &'a Finally,
        report: &'a Path,
    ) -> Result<Self, Fault> {
        let output = match finally.output {
            FinallyOutput::Stdout => OutputMode::Stdout,
            FinallyOutput::File => OutputMode::File,
            FinallyOutput::None | FinallyOutput::Unknown => OutputMode::None,
        };
        let (command, success) = (finally.command.clone(), [0].into());
        let program = Program { command, success, output, ..program.clone() };
        Ok(Self { work, attempt, finally, report, program, scratch: Scratch::new(&work.scratch)? })
    }

    /// Runs it to its end, with its stdout in `stdout`, and gives the file that it made, if it is to make one.
    pub fn run(&self, stdout: Option<&File>) -> Result<Option<File>, Fault> {
        let Self { work, attempt, program, scratch, .. } = self;
        let report = File::open(self.report).map_err(fault::output("open", self.report))?;
        let (output, temporary) = (scratch.output(), scratch.temporary());
        let output = (program.output == OutputMode::File).then_some(("HYPERFLOW_OUTPUT", output.as_path()));
        let more = std::iter::once(("HYPERFLOW_REPORT", self.report)).chain(output);
        let environment = Environment::of_last(work, &temporary, more);
        let mut ear = Ear::new()?;
        let child = Child::start(&Start {
            program,
            command: environment.expand(&program.command),
            environment: &environment,
            found: &work.found,
            mark: None,
            stdin: Stdin::File(&report),
            stdout: stdout.map_or(Stdout::Stderr, Stdout::File),
            stderr: &ear,
        })?;
        let speech = Speech::marked(io::stderr(), format!("[finally a{}] ", attempt.grant().attempt));
        // What it reads and writes is not seen here.
        let limits = Limits::of(work);
        let limits = Limits { time: AttemptLimits { progress: None, ..limits.time }, ..limits };
        let guard = Guard::new(limits, scratch, None, Duration::ZERO);
        let (feed, output, state) = (None, None, State::default());
        let mut watch = Watch { work, attempt, child, feed, output, ear: &mut ear, speech, guard, state };
        let end = watch.run()?;
        let said = watch.speech.tail();
        let failure = match end {
            End::Stopped => return Err(Fault::Stopped),
            End::Beyond(limit) => Some(program.beyond(limit, said)),
            End::Ended { ended, out_of_memory } => program.ended(ended, out_of_memory, said),
        };
        match failure {
            Some(failure) => Err(Fault::Refused(Box::new(failure))),
            None if program.output == OutputMode::File => self.made(said).map(Some),
            None => Ok(None),
        }
    }

    /// What is at HYPERFLOW_OUTPUT; links are not followed.
    fn made(&self, said: &[u8]) -> Result<File, Fault> {
        let path = self.scratch.output();
        let refuse = |left: Left| Fault::Refused(Box::new(self.program.left(&left, said)));
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(refuse(Left::Nothing)),
            Ok(found) if !found.is_file() => return Err(refuse(Left::Other("it must be a regular file".into()))),
            _ => {}
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
        opened.map_err(|error| refuse(Left::Other(format!("it cannot be read: {error}"))))
    }
}
