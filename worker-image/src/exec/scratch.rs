//! An attempt's own directory in the worker's scratch space: what the program is given to read and write, gone with the
//! attempt.

use std::{
    fs::{self, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::fs::OFlags;

use crate::{
    fault::{self, Fault},
    logs,
    work::locked,
};

/// Bytes that the smallest block of a file counts, as `st_blocks` does.
const BLOCK: u64 = 512;

/// Directories that programs have left as they were: the next attempt uses them again. Making and removing one takes several
/// times as long as a short program where others sync on the same disk.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<PathBuf>>);

impl Drop for Spare {
    fn drop(&mut self) {
        locked(&self.0).iter().for_each(|root| remove(root));
    }
}

/// The directory, given back or removed when this is dropped.
#[derive(Debug)]
pub struct Scratch<'a> {
    root: PathBuf,
    /// To whom it is given back; to nobody, if somebody may still write to it.
    spare: Option<&'a Spare>,
}

impl<'a> Scratch<'a> {
    /// Takes one that nobody else has.
    pub fn new(spare: &'a Spare) -> Result<Self, Fault> {
        let kept = locked(&spare.0).pop();
        match kept {
            Some(root) => Ok(Self { root, spare: Some(spare) }),
            None => Self::make(Some(spare)),
        }
    }

    /// Makes one that nobody has, or will have.
    pub fn alone() -> Result<Self, Fault> {
        Self::make(None)
    }

    fn make(spare: Option<&'a Spare>) -> Result<Self, Fault> {
        let temporary = std::env::temp_dir();
        let made = tempfile::Builder::new().prefix("attempt-").tempdir_in(&temporary);
        // What a program makes can be in the way of a plain removal, so this is done here.
        let root = made.map_err(fault::output("create a folder in", &temporary))?.keep();
        let scratch = Self { root, spare };
        let temporary = scratch.temporary();
        fs::create_dir(&temporary).map_err(fault::output("create", &temporary))?;
        Ok(scratch)
    }

    /// Writes what the attempt is.
    pub fn describe(&self, text: &[u8]) -> Result<(), Fault> {
        let path = self.description();
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        // Over what an earlier attempt was told, if it is longer than that: a file that is emptied first is synced by some
        // file systems.
        let opened = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(&path);
        let written = opened.and_then(|mut file| {
            file.write_all(text)?;
            if file.metadata()?.len() > text.len() as u64 { file.set_len(text.len() as u64) } else { Ok(()) }
        });
        written.map_err(fault::output("write", &path))
    }

    /// Whether there is nothing in it but what every attempt finds.
    fn is_untouched(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let expected = (entry.path() == self.description() && kind.is_file())
                || (entry.path() == self.temporary() && kind.is_dir() && fs::read_dir(entry.path())?.next().is_none());
            if !expected {
                return Ok(false);
            }
        }
        let as_made = |path: &Path, mode| fs::symlink_metadata(path).map(|found| found.mode() & 0o700 == mode);
        Ok(as_made(&self.root, 0o700)? && as_made(&self.temporary(), 0o700)? && as_made(&self.description(), 0o600)?)
    }

    /// TMPDIR of the program.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What the attempt is, as JSON.
    pub fn description(&self) -> PathBuf {
        self.root.join("shard.json")
    }

    /// A copy of the input.
    pub fn input(&self) -> PathBuf {
        self.root.join("input")
    }

    /// Where the program makes its output.
    pub fn output(&self) -> PathBuf {
        self.root.join("output")
    }

    /// Where it puts its checkpoints.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    /// The checkpoint that it goes on from.
    pub fn resume(&self) -> PathBuf {
        self.root.join("resume")
    }

    /// Where it puts its result.
    pub fn result(&self) -> PathBuf {
        self.root.join("result")
    }

    /// Bytes on disk of all that is in it.
    pub fn bytes(&self) -> u64 {
        let mut bytes = 0;
        each(&self.root, |found| bytes += found.blocks() * BLOCK);
        bytes
    }

    /// Something that differs once the output has changed: its size, and when it was written last.
    pub fn output_so_far(&self) -> (u64, i64, i64) {
        let mut so_far = (0, 0, 0);
        each(&self.output(), |found| {
            let (bytes, seconds, nanos) = so_far;
            let written = (found.mtime(), found.mtime_nsec()).max((seconds, nanos));
            so_far = (bytes + found.len(), written.0, written.1);
        });
        so_far
    }
}

/// Shows everything there is at and beneath a path. What vanishes meanwhile is not shown.
fn each(path: &Path, mut show: impl FnMut(&Metadata)) {
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        show(&found);
        if found.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten();
            left.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        match self.spare {
            Some(spare) if self.is_untouched().unwrap_or(false) => {
                locked(&spare.0).push(std::mem::take(&mut self.root));
            }
            _ => remove(&self.root),
        }
    }
}

fn remove(root: &Path) {
    let removed = match fs::remove_dir_all(root) {
        // A folder that forbids its owner to change it: caches of build tools do that.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            allow(root).and_then(|()| fs::remove_dir_all(root))
        }
        removed => removed,
    };
    if let Err(error) = removed {
        let fault = fault::output("remove", root)(error);
        tracing::warn!(error = logs::causes(&fault), "scratch space stays taken");
    }
}

fn allow(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            allow(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_as_it_was_is_used_again() {
        let spare = Spare::default();
        let scratch = Scratch::new(&spare).unwrap();
        scratch.describe(b"a long description").unwrap();
        let root = scratch.root.clone();
        drop(scratch);
        let scratch = Scratch::new(&spare).unwrap();
        assert_eq!(scratch.root, root);
        scratch.describe(b"a short one").unwrap();
        assert_eq!(fs::read(scratch.description()).unwrap(), b"a short one");
        fs::create_dir(scratch.temporary().join("cache")).unwrap();
        fs::set_permissions(scratch.temporary(), Permissions::from_mode(0o500)).unwrap();
        drop(scratch);
        assert!(!root.exists());
        let scratch = Scratch::new(&spare).unwrap();
        fs::write(scratch.checkpoint(), b"x").unwrap();
        let root = scratch.root.clone();
        drop(scratch);
        assert!(!root.exists());
        let root = Scratch::new(&spare).unwrap().root.clone();
        drop(spare);
        assert!(!root.exists());
        let root = Scratch::alone().unwrap().root.clone();
        assert!(!root.exists(), "one that somebody may still write to is nobody else's");
    }
}
