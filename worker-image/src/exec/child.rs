//! A process of the user's program: started without a shell, in a process group of its own, waited for, and ended with
//! everything in its group.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, ErrorKind, Read},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{self, ChildStdin, Command, Stdio},
    sync::Mutex,
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::program::{
    Program,
    ended::{Ended, NotStarted},
};
use rustix::{
    fs::{Access, access},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid},
};

use super::{
    ear::Ear,
    environment::Variable,
    kernel,
    orphans::{self, Owner},
};
use crate::{
    fault::{self, Fault},
    work::locked,
};

/// Where programs are looked for when PATH is not set, as execvp does.
const PATH: &str = "/bin:/usr/bin";

/// What to start.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program.
    pub program: &'a Program,
    /// Program and arguments, expanded.
    pub command: Vec<OsString>,
    /// All of its environment.
    pub environment: &'a [Variable],
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
    child: process::Child,
    /// Its own number, and its group's.
    group: Pid,
    /// Becomes readable when the process ends. None where the kernel has none: then it is looked at often.
    pidfd: Option<OwnedFd>,
    reaped: Option<Ended>,
    owner: Owner,
    /// Where its stdin is written.
    pub stdin: Option<ChildStdin>,
    /// What it writes to stdout.
    pub stdout: Option<io::PipeReader>,
    /// Nothing was left behind when it ended.
    pub alone: bool,
}

impl Child {
    /// Starts a program.
    pub fn start(start: &Start<'_>) -> Result<Self, Fault> {
        let Start { program, command, environment, stdin, stdout, .. } = start;
        let Some((name, arguments)) = command.split_first() else { return Err(refused(program, &NotStarted::NoFile)) };
        let dir = program.working_dir.as_deref().map(Path::new);
        if let Some(missing) = dir.filter(|dir| !dir.is_dir()) {
            return Err(refused(program, &NotStarted::NoDirectory(missing.display().to_string())));
        }
        let path = find_again(name, environment, dir).map_err(|why| refused(program, &why))?;
        if dir.is_some() && !is_program(&from(dir, &path)) {
            return Err(refused(program, &NotStarted::Format(std::env::consts::ARCH)));
        }
        // A path with a slash is not searched for: std then takes the fast way, without a copy of this process.
        let mut starting = Command::new(&path);
        starting.arg0(name).args(arguments).env_clear().process_group(0);
        starting.envs(environment.iter().map(|(name, value)| (name, value)));
        starting.stdin(match stdin {
            Stdin::Nothing => kernel::nothing().and_then(File::try_clone).map_err(|error| no_process(&error))?.into(),
            Stdin::Pipe => Stdio::piped(),
            Stdin::File(file) => file.try_clone().map_err(|error| no_process(&error))?.into(),
        });
        if let Some(dir) = dir {
            starting.current_dir(dir);
        }
        let to_stderr = || start.stderr.to_write().map_err(|error| no_process(&error));
        let read = match stdout {
            Stdout::Pipe => {
                let (read, to_stdout) = io::pipe().map_err(|error| no_process(&error))?;
                starting.stdout(to_stdout);
                Some(read)
            }
            Stdout::Stderr => {
                starting.stdout(to_stderr()?);
                None
            }
            Stdout::File(file) => {
                starting.stdout(file.try_clone().map_err(|error| no_process(&error))?);
                None
            }
        };
        starting.stderr(to_stderr()?);
        orphans::adopt_all();
        let mut owner = Owner::new(start.mark.clone());
        let mut child = starting.spawn().map_err(|error| {
            *locked(&FOUND) = None;
            not_started(program, &path, dir, &error)
        })?;
        // Our ends of what it writes to are closed with this.
        drop(starting);
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| {
            no_process(&io::Error::other(format!("the system gave the process the number {}", child.id())))
        })?;
        owner.leads(group);
        let pidfd = pidfd_open(group, PidfdFlags::empty()).ok();
        let stdin = child.stdin.take();
        Ok(Self { child, group, pidfd, reaped: None, owner, stdin, stdout: read, alone: false })
    }

    /// Becomes readable when it has ended, where the kernel can do that.
    pub fn ending(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
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
        let status = self.child.wait().map_err(|error| {
            let message = format!("cannot learn how the program ended: {error}");
            fault::try_again(FailureClass::WorkerLost, "NoProcess", message)
        })?;
        let ended = match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, signal) => Ended::Killed(signal.unwrap_or_default()),
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

/// Where a name was found last: the next attempt runs the same program. If it has gone meanwhile, its start says so.
static FOUND: Mutex<Option<Found>> = Mutex::new(None);

struct Found {
    name: OsString,
    search: OsString,
    path: PathBuf,
}

/// The same as [`find`], but for one that was found just so before.
fn find_again(name: &OsStr, environment: &[Variable], dir: Option<&Path>) -> Result<PathBuf, NotStarted> {
    if dir.is_some() {
        return find(name, environment, dir);
    }
    let search = search(environment);
    if let Some(found) = locked(&FOUND).as_ref().filter(|found| found.name == name && found.search == search) {
        return Ok(found.path.clone());
    }
    let path = find(name, environment, dir)?;
    *locked(&FOUND) = Some(Found { name: name.into(), search: search.into(), path: path.clone() });
    Ok(path)
}

/// The PATH that a program will have.
fn search(environment: &[Variable]) -> &OsStr {
    environment.iter().find(|(name, _)| &**name == "PATH").map_or(OsStr::new(PATH), |(_, value)| value)
}

/// Finds a program as execvp does, in the PATH that it will have itself.
fn find(name: &OsStr, environment: &[Variable], dir: Option<&Path>) -> Result<PathBuf, NotStarted> {
    if name.as_encoded_bytes().contains(&b'/') {
        let path = Path::new(name);
        return match look(&from(dir, path)) {
            Look::Missing => Err(NotStarted::NoFile),
            Look::Denied => Err(NotStarted::Denied),
            Look::Good => Ok(path.into()),
        };
    }
    let mut denied = false;
    for folder in std::env::split_paths(search(environment)) {
        // An empty part is the working directory.
        let path = if folder.as_os_str().is_empty() { Path::new(".").join(name) } else { folder.join(name) };
        match look(&from(dir, &path)) {
            Look::Missing => {}
            Look::Denied => denied = true,
            Look::Good => return Ok(path),
        }
    }
    Err(if denied { NotStarted::Denied } else { NotStarted::NoFile })
}

enum Look {
    Missing,
    Denied,
    Good,
}

fn look(path: &Path) -> Look {
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Look::Denied,
        Err(_) => Look::Missing,
        // Root may execute what anybody may.
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => Look::Denied,
        Ok(_) => {
            if access(path, Access::EXEC_OK).is_ok() {
                Look::Good
            } else {
                Look::Denied
            }
        }
    }
}

fn from(dir: Option<&Path>, path: &Path) -> PathBuf {
    dir.map_or_else(|| path.into(), |dir| dir.join(path))
}
