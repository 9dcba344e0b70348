//! A replica while it is written: under a name that nobody reads, and gone if it is not finished.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    disk::Replica,
    error::{BlockError, disk},
    replica::{Crc, HEADER, Head, JobTag, Name},
    room::Reserved,
};

/// Bytes of one block on their way to the disk.
pub struct Writing {
    file: File,
    path: PathBuf,
    name: Name,
    tag: JobTag,
    length: u64,
    written: u64,
    crc: Crc,
    /// The checksum that whoever sends it has for all of it.
    promised: Option<u32>,
    reserved: Option<Reserved>,
    /// The file has its own name no more.
    moved: bool,
}

impl Writing {
    /// At a path that nobody else uses.
    pub fn begin(path: PathBuf, name: Name, length: u64, tag: JobTag, reserved: Reserved) -> Result<Self, BlockError> {
        let open = || OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = match open() {
            // Whoever cleans up a volume by hand may take empty folders too.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(&path);
                fs::create_dir_all(folder).map_err(disk("create", folder))?;
                open()
            }
            opened => opened,
        };
        let file = file.map_err(disk("create", &path))?;
        let (crc, reserved) = (Crc::new(), Some(reserved));
        Ok(Self { file, path, name, tag, length, written: 0, crc, promised: None, reserved, moved: false })
    }

    /// Which block it is.
    pub fn name(&self) -> Name {
        self.name
    }

    /// Bytes that it has when it is whole.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Forgets what was written.
    pub fn restart(&mut self) {
        (self.written, self.crc, self.promised) = (0, Crc::new(), None);
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        if bytes.len() as u64 > self.length - self.written {
            return Err(self.damaged("more came than it has"));
        }
        let at = HEADER as u64 + self.written;
        self.file.write_all_at(bytes, at).map_err(disk("write", &self.path))?;
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Somebody sends the rest of what has this checksum: false if what was written before is of something else.
    pub fn promise(&mut self, crc: u32) -> bool {
        *self.promised.get_or_insert(crc) == crc
    }

    /// Whether all of it was written, and has this checksum.
    pub fn is_whole(&self, crc: u32) -> bool {
        self.written == self.length && self.crc.value() == crc
    }

    fn damaged(&self, why: &'static str) -> BlockError {
        BlockError::Damaged { path: self.path.clone(), why }
    }

    fn head(&self) -> Result<Head, BlockError> {
        if self.written != self.length {
            return Err(self.damaged("not all of it came"));
        }
        Ok(Head::new(&self.name, self.length, self.crc.value()))
    }

    /// Makes it durable under its name.
    pub fn keep(mut self, folder: &Path, path: &Path) -> Result<(), BlockError> {
        let head = self.head()?;
        let write = self.file.write_all_at(&head.encode(self.tag), 0).and_then(|()| self.file.sync_data());
        write.map_err(disk("write", &self.path))?;
        match fs::create_dir(folder) {
            Ok(()) => sync(folder.parent().unwrap_or(folder))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(disk("create", folder)(error)),
        }
        // One that is there already takes the room that it had: this one takes its place.
        let before = fs::symlink_metadata(path).map(|found| found.len()).ok();
        fs::rename(&self.path, path).map_err(disk("rename", path))?;
        self.moved = true;
        if before.is_none()
            && let Some(reserved) = self.reserved.take()
        {
            reserved.keep();
        }
        sync(folder)
    }

    /// Takes its name away: it is read by whoever has it now, and gone with them.
    pub fn lend(mut self) -> Result<Replica, BlockError> {
        let head = self.head()?;
        fs::remove_file(&self.path).map_err(disk("remove", &self.path))?;
        self.moved = true;
        let file = self.file.try_clone().map_err(disk("keep open", &self.path))?;
        Ok(Replica::new(file, head))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.moved
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a half-written replica stays until the next start");
        }
    }
}

fn sync(folder: &Path) -> Result<(), BlockError> {
    File::open(folder).and_then(|open| open.sync_all()).map_err(disk("sync the folder", folder))
}
