//! A process of the user's program: started without a shell, in a process group of its own, waited for, and ended with
//! everything in its group.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::program::{
    Program,
    ended::{Ended, NotStarted},
};
use rustix::{
    io::{Errno, retry_on_intr},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, pidfd_open, waitid, waitpid,
    },
};

use super::{
    ear::Ear,
    environment::Environment,
    find::{Found, from},
    kernel,
    orphans::{self, Owner},
    spawn::Spawn,
};
use crate::fault::{self, Fault};

/// What to start.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program.
    pub program: &'a Program,
    /// Program and arguments, expanded.
    pub command: Vec<OsString>,
    /// All of its environment.
    pub environment: &'a Environment,
    /// Where it was found before.
    pub found: &'a Found,
    /// What marks its processes: the value of HYPERFLOW_EPOCH, if it has one.
    pub mark: Option<String>,
    /// What it reads.
    pub stdin: Stdin<'a>,
    /// Where its stdout goes.
    pub stdout: Stdout<'a>,
    /// Where its stderr goes.
    pub stderr: &'a Ear,
}

/// What a program reads.
#[derive(Clone, Copy, Debug)]
pub enum Stdin<'a> {
    /// /dev/null.
    Nothing,
    /// What is written to it.
    Pipe,
    /// A file.
    File(&'a File),
}

/// Where what a program writes to stdout goes.
#[derive(Clone, Copy, Debug)]
pub enum Stdout<'a> {
    /// Where stderr goes.
    Stderr,
    /// It is read.
    Pipe,
    /// Into a file.
    File(&'a File),
}

/// A running program.
#[derive(Debug)]
pub struct Child {
    /// Its own number, and its group's.
    group: Pid,
    /// Becomes readable when the process ends. None where the kernel has none: then it is looked at often.
    pidfd: Option<OwnedFd>,
    reaped: Option<Ended>,
    owner: Owner,
    /// Where its stdin is written.
    pub stdin: Option<io::PipeWriter>,
    /// What it writes to stdout.
    pub stdout: Option<io::PipeReader>,
    /// Nothing was left behind when it ended.
    pub alone: bool,
}

impl Child {
    /// Starts a program.
    pub fn start(start: &Start<'_>) -> Result<Self, Fault> {
        let Start { program, command, environment, stdin, stdout, .. } = start;
        let Some(name) = command.first() else { return Err(refused(program, &NotStarted::NoFile)) };
        let dir = program.working_dir.as_deref().map(Path::new);
        if let Some(missing) = dir.filter(|dir| !dir.is_dir()) {
            return Err(refused(program, &NotStarted::NoDirectory(missing.display().to_string())));
        }
        let path = start.found.find(name, environment, dir).map_err(|why| refused(program, &why))?;
        if dir.is_some() && !is_program(&from(dir, &path)) {
            return Err(refused(program, &NotStarted::Format(std::env::consts::ARCH)));
        }
        let pipe = || io::pipe().map_err(|error| no_process(&error));
        let (fed, to_stdin) = matches!(stdin, Stdin::Pipe).then(pipe).transpose()?.unzip();
        let (read, to_stdout) = matches!(stdout, Stdout::Pipe).then(pipe).transpose()?.unzip();
        let ends = [
            match (stdin, &fed) {
                (Stdin::File(file), _) => file.as_fd(),
                (_, Some(fed)) => fed.as_fd(),
                (_, None) => kernel::nothing().map_err(|error| no_process(&error))?.as_fd(),
            },
            match (stdout, &to_stdout) {
                (Stdout::File(file), _) => file.as_fd(),
                (_, Some(to_stdout)) => to_stdout.as_fd(),
                (_, None) => start.stderr.to_write(),
            },
            start.stderr.to_write(),
        ];
        orphans::adopt_all();
        let mut owner = Owner::new(start.mark.clone());
        let group = Spawn { path: &path, command, environment, dir, ends }.spawn().map_err(|error| {
            start.found.forget();
            not_started(program, &path, dir, &error)
        })?;
        owner.leads(group);
        let pidfd = pidfd_open(group, PidfdFlags::empty()).ok();
        Ok(Self { group, pidfd, reaped: None, owner, stdin: to_stdin, stdout: read, alone: false })
    }

    /// Becomes readable when it has ended, where the kernel can do that.
    pub fn ending(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(OwnedFd::as_fd)
    }

    /// Whether it has ended. Its number stays its own until [`Self::finish`].
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error is ECHILD: somebody else has reaped it, and it has ended.
        self.reaped.is_some() || !matches!(waitid(WaitId::Pid(self.group), options), Ok(None) | Err(Errno::INTR))
    }

    /// Sends a signal to it and all in its group.
    pub fn signal(&self, signal: Signal) {
        if self.reaped.is_none() {
            // An error means that nobody of the group is left.
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Kills what is left of its group, then everything that escaped from it, and says how it ended. Nothing of it runs
    /// afterwards.
    pub fn finish(&mut self) -> Result<Ended, Fault> {
        if let Some(ended) = self.reaped {
            return Ok(ended);
        }
        // Before it is reaped: until then its number cannot be another's.
        self.signal(Signal::KILL);
        let waited = retry_on_intr(|| waitpid(Some(self.group), WaitOptions::empty()));
        let status = waited.map_err(|error| {
            let message = format!("cannot learn how the program ended: {error}");
            fault::try_again(FailureClass::WorkerLost, "NoProcess", message)
        })?;
        let ended = match status.map(|(_, status)| (status.exit_status(), status.terminating_signal())) {
            Some((Some(code), _)) => Ended::Exited(code),
            other => Ended::Killed(other.and_then(|(_, signal)| signal).unwrap_or_default()),
        };
        self.reaped = Some(ended);
        self.alone = self.owner.end();
        Ok(ended)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(error = crate::logs::causes(&error), "a program may be left running");
        }
    }
}

fn refused(program: &Program, why: &NotStarted) -> Fault {
    Fault::Refused(Box::new(program.not_started(why)))
}

/// The system has no room for a process: nothing that the program or its shard could help.
pub fn no_process(error: &io::Error) -> Fault {
    let message = format!("cannot start a process: {error}");
    fault::try_again(FailureClass::WorkerLost, "NoProcess", message)
}

fn not_started(program: &Program, path: &Path, dir: Option<&Path>, error: &io::Error) -> Fault {
    let why = match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => return no_process(error),
        Some(Errno::NOENT | Errno::NOTDIR) => interpreter(&from(dir, path)),
        Some(Errno::ACCESS | Errno::PERM | Errno::ISDIR) => NotStarted::Denied,
        Some(Errno::NOEXEC | Errno::INVAL | Errno::LIBBAD) => NotStarted::Format(std::env::consts::ARCH),
        Some(Errno::TOOBIG) => NotStarted::TooLong,
        _ => NotStarted::Other(error.to_string()),
    };
    refused(program, &why)
}

/// Whether a file is a script, or of the format and for the machine of this very process. Where a working directory is
/// set, std starts programs by a call that gives everything else to a shell.
fn is_program(path: &Path) -> bool {
    let first = |path: &Path| {
        let mut first = Vec::new();
        File::open(path).and_then(|file| file.take(20).read_to_end(&mut first)).ok().map(|_| first)
    };
    let (Some(its), Some(own)) = (first(path), first(Path::new("/proc/self/exe"))) else {
        // What may be executed need not be readable.
        return true;
    };
    // Magic number, class and order of bytes; then, after what may differ, the machine.
    let same = |range: std::ops::Range<usize>| its.get(range.clone()) == own.get(range);
    its.starts_with(b"#!") || (same(0..6) && same(18..20))
}

/// The file is there, and was not found: what should run it is not there.
fn interpreter(path: &Path) -> NotStarted {
    let mut first = Vec::new();
    let read = File::open(path).and_then(|file| file.take(256).read_to_end(&mut first));
    match (read, first.strip_prefix(b"#!")) {
        (Err(error), _) if error.kind() == ErrorKind::NotFound => NotStarted::NoFile,
        (_, Some(rest)) => {
            let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            NotStarted::NoInterpreter(format!("its first line names '{}'", line.trim()))
        }
        _ => NotStarted::NoInterpreter("it needs a dynamic loader that the image does not have".into()),
    }
}
