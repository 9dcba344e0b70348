//! A shard's input where the program can open it: the mounted file itself where it is whole, otherwise a private copy.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    ops::Range,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use hyperflow_api::{exec::InputMode, ids::ShardIndex, message::FailureClass};
use hyperflow_core::{
    paths::{file_path, is_plain},
    plan::{InputFile, Shard},
    program::Program,
    source::Cut,
};

use super::{feed::Feed, scratch::Scratch};
use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    input::Input,
    store,
    stream::Stream,
    work::Work,
};

/// Where a shard's input is.
#[derive(Debug, Default)]
pub struct Placed {
    path: Option<PathBuf>,
    range: Range<u64>,
    /// What the program reads itself: it must be the same file afterwards.
    mounted: Vec<InputFile>,
    copied: u64,
}

impl Placed {
    /// Puts a shard's input where the program expects it.
    pub fn place(
        work: &Work,
        attempt: &Attempt,
        program: &Program,
        (index, shard): (ShardIndex, &Shard),
        cut: &Cut,
        scratch: &Scratch<'_>,
    ) -> Result<Self, Fault> {
        let mut placing = Placing { work, attempt, index, scratch, placed: Self::default(), buffer: Vec::new() };
        match program.input {
            InputMode::File => placing.file(shard, cut)?,
            InputMode::Directory => placing.directory(shard, cut)?,
            InputMode::Range => placing.range(shard, cut)?,
            InputMode::Stdin | InputMode::None | InputMode::Unknown => {}
        }
        Ok(placing.placed)
    }

    /// A file or a directory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Which bytes of the file are the shard's.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Bytes that were copied for the program.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Refuses what the program has made of its input if that was not what was planned.
    pub fn unchanged(&self, work: &Work) -> Result<(), Fault> {
        self.mounted.iter().try_for_each(|file| Input::open(work, file).map(drop))
    }
}

struct Placing<'a> {
    work: &'a Work,
    attempt: &'a Attempt,
    index: ShardIndex,
    scratch: &'a Scratch<'a>,
    placed: Placed,
    buffer: Vec<u8>,
}

impl Placing<'_> {
    fn file(&mut self, shard: &Shard, cut: &Cut) -> Result<(), Fault> {
        let path = self.scratch.input();
        if !cut.is_of_files() {
            self.copy(&mut Feed::new(shard, None), &path, u64::MAX)?;
            self.placed.path = Some(path);
            return Ok(());
        }
        let stream = Stream::open(self.work, self.index, shard, cut)?;
        let whole = stream.pieces().next().filter(|(file, range)| is_whole(file, range) && !stream.is_of_blocks());
        let whole = whole.map(|(file, _)| file);
        self.placed.path = Some(match whole {
            Some(file) => self.mounted(file)?,
            None => {
                let length = stream.length();
                self.copy(&mut Feed::new(shard, Some(stream)), &path, length)?;
                path
            }
        });
        Ok(())
    }

    fn range(&mut self, shard: &Shard, cut: &Cut) -> Result<(), Fault> {
        let stream = Stream::open(self.work, self.index, shard, cut)?;
        if let Some((file, range)) = stream.pieces().next() {
            self.placed.path = Some(self.mounted(file)?);
            self.placed.range = range;
        }
        Ok(())
    }

    fn directory(&mut self, shard: &Shard, cut: &Cut) -> Result<(), Fault> {
        let root = self.scratch.input();
        fs::create_dir(&root).map_err(fault::output("create", &root))?;
        let mut stream = Stream::open(self.work, self.index, shard, cut)?;
        let mut position = 0;
        let pieces: Vec<(&InputFile, Range<u64>)> = stream.pieces().collect();
        for (number, (file, range)) in pieces.iter().enumerate() {
            self.attempt.go_on()?;
            if !is_plain(&file.path) {
                return Err(not_placed(file, "its path is not a plain relative one"));
            }
            let path = root.join(&file.path);
            let collide = |_| not_placed(file, "another file of the shard has that name");
            fs::create_dir_all(store::parent(&path)).map_err(collide)?;
            let length = range.end - range.start;
            if stream.is_of_blocks() {
                // The mounted file may be gone, or another one: each has a copy of what was planned.
                if path.symlink_metadata().is_ok() {
                    return Err(collide(ErrorKind::AlreadyExists.into()));
                }
                self.copy_part(&mut stream, position..position + length, &path)?;
            } else if is_whole(file, range) {
                let mounted = self.mounted(file)?;
                match symlink(mounted, &path) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(collide(error)),
                    linked => linked.map_err(fault::output("link", &path))?,
                }
            } else {
                // One piece of the shard alone.
                let piece = Shard { pieces: shard.pieces[number..=number].to_vec(), ..Shard::default() };
                let stream = Stream::open(self.work, self.index, &piece, cut)?;
                let length = stream.length();
                self.copy(&mut Feed::new(&piece, Some(stream)), &path, length)?;
            }
            position += length;
        }
        self.placed.path = Some(root);
        Ok(())
    }

    /// The path of a mounted file, which is as it was planned and lies on a volume of the job.
    fn mounted(&mut self, file: &InputFile) -> Result<PathBuf, Fault> {
        Input::open(self.work, file)?;
        self.placed.mounted.push(file.clone());
        Ok(file_path(&file.url).unwrap_or(&file.url).into())
    }

    fn copy(&mut self, feed: &mut Feed<'_>, path: &Path, length: u64) -> Result<(), Fault> {
        self.copy_from(path, length, |into, most| feed.next(into, most))
    }

    /// Bytes of a stream, which goes on from one file to the next.
    fn copy_part(&mut self, stream: &mut Stream<'_>, bytes: Range<u64>, path: &Path) -> Result<(), Fault> {
        let mut position = bytes.start;
        self.copy_from(path, bytes.end - bytes.start, |into, most| {
            into.resize(usize::try_from(bytes.end - position).unwrap_or(usize::MAX).min(most), 0);
            stream.read(into, position)?;
            position += into.len() as u64;
            Ok(())
        })
    }

    fn copy_from(
        &mut self,
        path: &Path,
        length: u64,
        mut next: impl FnMut(&mut Vec<u8>, usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let write = || fault::output("write", path);
        let mut to = File::create_new(path).map_err(fault::output("create", path))?;
        let chunk = self.work.chunk().min(usize::try_from(length).unwrap_or(usize::MAX)).max(1);
        loop {
            self.work.pace(chunk as u64, self.attempt)?;
            next(&mut self.buffer, chunk)?;
            if self.buffer.is_empty() {
                return Ok(());
            }
            to.write_all(&self.buffer).map_err(write())?;
            self.placed.copied += self.buffer.len() as u64;
            self.work.metrics.bytes_read.inc_by(self.buffer.len() as u64);
        }
    }
}

fn is_whole(file: &InputFile, range: &Range<u64>) -> bool {
    *range == (0..file.size)
}

fn not_placed(file: &InputFile, why: &str) -> Fault {
    let message = format!(
        "'{}' cannot be in the directory of its shard as '{}': {why}. Use `spec.task.exec.input` 'File' with one file per \
         shard, or give the files other names",
        file.url, file.path
    );
    fault::end_job(FailureClass::BadInput, "InputNameCollision", message)
}
