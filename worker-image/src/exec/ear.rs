//! The pipe in which a program's stderr is heard.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    sync::Mutex,
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::ioctl_fionbio,
};

use super::child::no_process;
use crate::{fault::Fault, work::locked};

/// Our own end to write to stays open: that a program has closed its stderr is of no use to anybody, and would wake who
/// waits for its end a moment too early.
#[derive(Debug)]
pub struct Ear {
    read: io::PipeReader,
    write: io::PipeWriter,
}

impl Ear {
    /// One that nobody has written to.
    pub fn new() -> Result<Self, Fault> {
        let (read, write) = io::pipe().map_err(|error| no_process(&error))?;
        ioctl_fionbio(&read, true).map_err(|error| no_process(&error.into()))?;
        Ok(Self { read, write })
    }

    /// What a program writes to.
    pub fn to_write(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// What was written, as much as is there: an error when that is nothing.
    pub fn hear(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer)
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// Those that are empty, and that nobody has any more who could write to them.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Ear>>);

impl Spare {
    /// One of them, or a new one.
    pub fn take(&self) -> Result<Ear, Fault> {
        locked(&self.0).pop().map_or_else(Ear::new, Ok)
    }

    /// For the next program, which finds it as the first one did: some set it not to wait when it is full.
    pub fn keep(&self, ear: Ear) {
        if fcntl_setfl(&ear.write, OFlags::empty()).is_ok() {
            locked(&self.0).push(ear);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use rustix::fs::fcntl_getfl;

    use super::*;

    #[test]
    fn what_was_said_is_heard_and_nothing_is_no_end() {
        let spare = Spare::default();
        let mut ear = spare.take().unwrap();
        let mut buffer = [0; 8];
        ear.write.write_all(b"words").unwrap();
        assert_eq!(ear.hear(&mut buffer).unwrap(), 5);
        assert_eq!(ear.hear(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        ioctl_fionbio(ear.to_write(), true).unwrap();
        spare.keep(ear);
        let mut ear = spare.take().unwrap();
        assert!(!fcntl_getfl(&ear.write).unwrap().contains(OFlags::NONBLOCK), "the next program waits");
        assert_eq!(ear.hear(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
