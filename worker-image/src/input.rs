//! The input: opened where it really is, and known by a version that changes with its content (P28).

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::{paths::file_path, plan::InputFile};
use rustix::fs::OFlags;

use crate::{
    fault::{self, Fault},
    work::Work,
};

/// What tells this content of a file from any other it may have: size, times of change, inode.
pub fn version(found: &Metadata) -> String {
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    format!(
        "{}-{}-{}-{}",
        found.size(),
        nanos(found.mtime(), found.mtime_nsec()),
        nanos(found.ctime(), found.ctime_nsec()),
        found.ino()
    )
}

/// An open input file of the plan.
#[derive(Debug)]
pub struct Input<'a> {
    file: File,
    path: PathBuf,
    planned: &'a InputFile,
}

/// Opens the file of a URL, if it is on a volume of the job.
pub fn open(work: &Work, url: &str) -> Result<(File, PathBuf), Fault> {
    let path = Path::new(file_path(url).unwrap_or(url));
    let real = work.on_volume(FailureClass::BadInput, path)?;
    // The path has no links any more. One that is put there now is refused; a pipe does not block the open.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&real);
    Ok((opened.map_err(fault::input("open", path))?, real))
}

impl<'a> Input<'a> {
    /// Opens an input as it was planned.
    pub fn open(work: &Work, planned: &'a InputFile) -> Result<Self, Fault> {
        let (file, path) = open(work, &planned.url)?;
        let input = Self { file, path, planned };
        input.unchanged()?;
        Ok(input)
    }

    /// Whether it is this one, as it was planned.
    pub fn is_of(&self, planned: &InputFile) -> bool {
        self.planned.url == planned.url && self.planned.version == planned.version
    }

    /// Refuses the file once it is not the one planned.
    pub fn unchanged(&self) -> Result<(), Fault> {
        let found = self.file.metadata().map_err(fault::input("look at", &self.path))?;
        if version(&found) == self.planned.version { Ok(()) } else { Err(self.changed(found.size())) }
    }

    /// Reads at `offset` until `buffer` is full or nothing more comes; a file that ends too early has changed.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Fault> {
        self.file.read_exact_at(buffer, offset).or_else(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                let found = self.file.metadata().map_err(fault::input("look at", &self.path))?;
                return Err(self.changed(found.size()));
            }
            Err(fault::input("read", &self.path)(error))
        })
    }

    fn changed(&self, size: u64) -> Fault {
        let message = format!(
            "'{}' is not the file that was planned: it had {} bytes and has {size} now, or was written since. \
             Create a new ShardJob for the changed input",
            self.planned.url, self.planned.size
        );
        fault::end_job(FailureClass::BadInput, "InputChanged", message)
    }
}
