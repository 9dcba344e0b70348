//! Making a process: of which file, with which arguments, environment and ends.
//!
//! `posix_spawn` copies nothing of this process, and takes descriptors as they are. Only to another working directory
//! `nix` knows no way in it: there std's is taken, which copies this process first.

use std::{
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::signal::SigSet,
};
use rustix::process::Pid;

use super::environment::Environment;

/// What is to be a process. It leads a group of its own, no signal is ignored or held back in it, and it has no
/// descriptor but its three.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The file. It is not searched for.
    pub path: &'a Path,
    /// What it is told that it is called, then its arguments.
    pub command: &'a [OsString],
    /// All of its environment.
    pub environment: &'a Environment,
    /// Where it begins; where this process is, if it is not said.
    pub dir: Option<&'a Path>,
    /// Its stdin, stdout and stderr.
    pub ends: [BorrowedFd<'a>; 3],
}

impl Spawn<'_> {
    /// Makes it. Whoever has its number must wait for its end.
    pub fn spawn(&self) -> io::Result<Pid> {
        let number = match self.dir {
            None => self.here()?,
            Some(dir) => self.there(dir)?,
        };
        Pid::from_raw(number)
            .ok_or_else(|| io::Error::other(format!("the system gave the process the number {number}")))
    }

    fn here(&self) -> io::Result<i32> {
        let mut ends = PosixSpawnFileActions::init()?;
        for (to, end) in (0..).zip(self.ends) {
            ends.add_dup2(end.as_raw_fd(), to)?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_sigmask(&SigSet::empty())?;
        let command: Vec<CString> =
            self.command.iter().map(|part| CString::new(part.as_bytes())).collect::<Result<_, _>>()?;
        let environment = self.environment.strings()?;
        Ok(posix_spawn(self.path, &ends, &attributes, &command, &environment)?.as_raw())
    }

    fn there(&self, dir: &Path) -> io::Result<i32> {
        let mut starting = Command::new(self.path);
        if let Some((name, arguments)) = self.command.split_first() {
            starting.arg0(name).args(arguments);
        }
        starting.env_clear().envs(self.environment.pairs()).current_dir(dir).process_group(0);
        let [stdin, stdout, stderr] = self.ends;
        let end = |end: BorrowedFd<'_>| end.try_clone_to_owned().map(Stdio::from);
        starting.stdin(end(stdin)?).stdout(end(stdout)?).stderr(end(stderr)?);
        Ok(starting.spawn()?.id().cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::AsFd};

    use rustix::process::{WaitOptions, waitpid};

    use super::*;
    use crate::exec::kernel;

    /// What a program says that gets this environment, and begins in `dir`.
    fn said(command: &[&str], environment: &Environment, dir: Option<&Path>) -> io::Result<String> {
        let (mut read, write) = io::pipe()?;
        let nothing = kernel::nothing()?;
        let path = Path::new(command[0]);
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let ends = [nothing.as_fd(), write.as_fd(), nothing.as_fd()];
        let pid = Spawn { path, command: &command, environment, dir, ends }.spawn()?;
        drop(write);
        let mut said = String::new();
        read.read_to_string(&mut said)?;
        waitpid(Some(pid), WaitOptions::empty())?;
        Ok(said)
    }

    #[test]
    fn both_ways_make_the_same_process() {
        let environment = Environment::of([("ONE", "1=1".into()), ("PATH", "/nowhere".into())]);
        let _other = std::fs::File::open("/etc/passwd").unwrap();
        let shell = "PATH=/bin:/usr/bin; echo $ONE $PATH; readlink /proc/self/fd/* | grep -c /etc/passwd; \
                     cut -d ' ' -f 5 /proc/self/stat | grep -qx $$ && echo own group; \
                     grep -E '^Sig(Blk|Ign)' /proc/self/status";
        for dir in [None, Some(Path::new("/"))] {
            let said = said(&["/bin/sh", "-c", shell], &environment, dir).unwrap();
            let (first, signals) = said.split_at(said.find("Sig").unwrap());
            assert_eq!(first, "1=1 /bin:/usr/bin\n0\nown group\n", "{dir:?}");
            // Rust itself ignores signal 13. 32 and 33 are glibc's own.
            for line in signals.lines() {
                let set = u64::from_str_radix(line[7..].trim(), 16).unwrap();
                assert_eq!(set & 0x7fff_ffff, 0, "{dir:?}: {line}");
            }
            assert_eq!(signals.lines().count(), 2);
        }
        assert_eq!(said(&["/bin/pwd"], &environment, Some(Path::new("/usr"))).unwrap(), "/usr\n");
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let none = Environment::of([]);
        for dir in [None, Some(Path::new("/"))] {
            let kind = |command: &[&str], environment| said(command, environment, dir).unwrap_err().kind();
            assert_eq!(kind(&["/nowhere/at/all"], &none), io::ErrorKind::NotFound);
            assert_eq!(kind(&["/bin/true", "a\0b"], &none), io::ErrorKind::InvalidInput);
            assert_eq!(kind(&["/bin/true"], &Environment::of([("A", "\0".into())])), io::ErrorKind::InvalidInput);
        }
    }
}
