//! An attempt's own directory in the worker's scratch space: what the program is given to read and write, gone with the
//! attempt.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use crate::{
    fault::{self, Fault},
    logs,
    work::locked,
};

/// Bytes that the smallest block of a file counts, as `st_blocks` does.
const BLOCK: u64 = 512;

/// A time by which every file system's clock has moved on: what changes after it has another time of change.
const TELLING: Duration = Duration::from_secs(3);

/// Directories that programs have left as they were: the next attempt uses them again. Making and removing one takes several
/// times as long as a short program where others sync on the same disk.
#[derive(Debug, Default)]
pub struct Spare(Mutex<Vec<Folder>>);

impl Drop for Spare {
    fn drop(&mut self) {
        locked(&self.0).iter().for_each(|folder| remove(&folder.root));
    }
}

/// A directory, and what is known of it.
#[derive(Debug, Default)]
struct Folder {
    root: PathBuf,
    /// The description, if it is still the file that was made.
    told: Option<Told>,
    /// It was untouched when it and TMPDIR looked so.
    untouched: Option<Untouched>,
}

/// A directory and the TMPDIR in it as they looked when there was nothing in them. Both stay open: to ask what is open costs
/// a fraction of what a name costs.
#[derive(Debug)]
struct Untouched {
    open: [File; 2],
    looks: [Look; 2],
    /// When they were first seen to look so.
    since: Instant,
}

/// A description as it was written.
#[derive(Debug)]
struct Told {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    length: u64,
}

/// What differs once a name in a directory has changed, or it itself: inode, mode, and time of the last change.
type Look = (u64, u32, i64, i64);

/// The directory, given back or removed when this is dropped.
#[derive(Debug)]
pub struct Scratch<'a> {
    root: PathBuf,
    told: Mutex<Option<Told>>,
    untouched: Option<Untouched>,
    /// When the attempt took it.
    since: Instant,
    /// To whom it is given back; to nobody, if somebody may still write to it.
    spare: Option<&'a Spare>,
}

impl<'a> Scratch<'a> {
    /// Takes one that nobody else has.
    pub fn new(spare: &'a Spare) -> Result<Self, Fault> {
        let kept = locked(&spare.0).pop();
        match kept {
            Some(folder) => Ok(Self::of(folder, Some(spare))),
            None => Self::make(Some(spare)),
        }
    }

    /// Makes one that nobody has, or will have.
    pub fn alone() -> Result<Self, Fault> {
        Self::make(None)
    }

    fn of(Folder { root, told, untouched }: Folder, spare: Option<&'a Spare>) -> Self {
        Self { root, told: Mutex::new(told), untouched, since: Instant::now(), spare }
    }

    fn make(spare: Option<&'a Spare>) -> Result<Self, Fault> {
        let temporary = std::env::temp_dir();
        let made = tempfile::Builder::new().prefix("attempt-").tempdir_in(&temporary);
        // What a program makes can be in the way of a plain removal, so this is done here.
        let root = made.map_err(fault::output("create a folder in", &temporary))?.keep();
        let scratch = Self::of(Folder { root, ..Folder::default() }, spare);
        let temporary = scratch.temporary();
        fs::create_dir(&temporary).map_err(fault::output("create", &temporary))?;
        Ok(scratch)
    }

    /// Writes what the attempt is.
    pub fn describe(&self, text: &[u8]) -> Result<(), Fault> {
        let path = self.description();
        let length = text.len() as u64;
        // Over what an earlier attempt was told, if it is longer than that: a file that is emptied first is synced by some
        // file systems.
        let earlier = locked(&self.told).take().map_or_else(|| open(&path), Ok);
        let written = earlier.and_then(|told| {
            told.file.write_all_at(text, 0)?;
            if told.length > length {
                told.file.set_len(length)?;
            }
            Ok(Told { length, ..told })
        });
        *locked(&self.told) = Some(written.map_err(fault::output("write", &path))?);
        Ok(())
    }

    /// What to keep of it, if there is nothing in it but what every attempt finds.
    fn kept(&mut self) -> io::Result<Option<Folder>> {
        // Where a directory looks as it did, its names are of what they were of.
        let untouched = match self.untouched.take().filter(Untouched::is_so_still) {
            Some(untouched) => untouched,
            None => Untouched::now(&self.root, &self.temporary())?,
        };
        // Where the times tell nothing yet, what is there does.
        let told_by_time = self.since.saturating_duration_since(untouched.since) >= TELLING;
        let told = locked(&self.told).take();
        let description = match &told {
            Some(told) if told_by_time => told.file.metadata()?,
            _ => fs::symlink_metadata(self.description())?,
        };
        let private = untouched.looks.iter().all(|(_, mode, ..)| mode & 0o700 == 0o700);
        if !private || description.mode() & 0o700 != 0o600 || !told_by_time && !self.is_empty()? {
            return Ok(None);
        }
        let (id, length) = ((description.dev(), description.ino()), description.len());
        let told = told.filter(|told| (told.id, told.length) == (id, length));
        Ok(Some(Folder { root: std::mem::take(&mut self.root), told, untouched: Some(untouched) }))
    }

    /// Whether only the description and an empty TMPDIR are in it.
    fn is_empty(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let expected = (entry.path() == self.description() && kind.is_file())
                || (entry.path() == self.temporary() && kind.is_dir() && fs::read_dir(entry.path())?.next().is_none());
            if !expected {
                return Ok(false);
            }
        }
        Ok(true)
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
        match self.spare.and_then(|spare| Some((spare, self.kept().ok()??))) {
            Some((spare, folder)) => locked(&spare.0).push(folder),
            None => remove(&self.root),
        }
    }
}

/// The file with a description, which may be there from an earlier attempt.
fn open(path: &Path) -> io::Result<Told> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    Ok(Told { file, id: (found.dev(), found.ino()), length: found.len() })
}

impl Untouched {
    /// What is there now; links are not followed.
    fn now(root: &Path, temporary: &Path) -> io::Result<Self> {
        let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
        let open = |path: &Path| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let open = [open(root)?, open(temporary)?];
        let looks = [look(&open[0])?, look(&open[1])?];
        Ok(Self { open, looks, since: Instant::now() })
    }

    fn is_so_still(&self) -> bool {
        self.open.iter().zip(&self.looks).all(|(open, looks)| look(open).is_ok_and(|now| now == *looks))
    }
}

/// How a directory looks.
fn look(open: &File) -> io::Result<Look> {
    open.metadata().map(|found| (found.ino(), found.mode(), found.ctime(), found.ctime_nsec()))
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
mod tests;
