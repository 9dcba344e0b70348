//! Output on its way: each attempt writes a segment of its own, and reads older ones only as far as the checkpoint says
//! (P3, P20).

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use crc_fast::{CrcAlgorithm, Digest};
use hyperflow_core::checkpoint::Segment;

use crate::{
    attempt::Attempt,
    direct::DirectFile,
    fault::{self, Fault},
    store,
    work::Work,
};

/// Files smaller than this are written through the page cache: they are read again soon, or never were slow.
const DIRECT_FROM: u64 = 1 << 20;

/// A running CRC-32C.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(Digest);

impl Default for Crc32c {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
}

impl Crc32c {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes so far.
    pub fn value(&self) -> u32 {
        // A 32-bit sum in a 64-bit type.
        (self.0.finalize() & 0xffff_ffff) as u32
    }
}

/// A file that one attempt writes from its beginning.
#[derive(Debug)]
pub struct Writer {
    file: DirectFile,
    path: PathBuf,
    name: String,
    length: u64,
    crc: Crc32c,
}

impl Writer {
    /// Makes `name` in `folder`, which must not exist, for about `expected` bytes.
    pub fn create(folder: &Path, name: String, expected: u64) -> Result<Self, Fault> {
        let path = folder.join(&name);
        let file = DirectFile::new(store::create_new(&path)?, expected >= DIRECT_FROM);
        Ok(Self { file, path, name, length: 0, crc: Crc32c::default() })
    }

    /// Adds bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_at(bytes, self.length).map_err(fault::output("write", &self.path))?;
        self.crc.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything so far durable.
    pub fn sync(&self) -> Result<(), Fault> {
        self.file.file().sync_data().map_err(fault::output("sync", &self.path))
    }

    /// Gives back the room of what no checkpoint counts: the next attempt writes that again. Never of a file that may
    /// have been published, which is this very file.
    pub fn give_back(&self, counted: u64) -> Result<(), Fault> {
        match counted {
            0 => store::remove(&self.path),
            _ => self.file.file().set_len(counted).map_err(fault::output("shorten", &self.path)),
        }
    }

    /// What a checkpoint says of it.
    pub fn segment(&self) -> Segment {
        Segment { name: self.name.clone(), length: self.length, crc32c: self.crc.value() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Copies the counted bytes of older segments, in order, to the end of `to`, and verifies each.
pub fn assemble(
    work: &Work,
    attempt: &Attempt,
    folder: &Path,
    segments: &[Segment],
    to: &mut Writer,
    buffer: &mut [u8],
) -> Result<(), Fault> {
    for segment in segments {
        let path = folder.join(&segment.name);
        let mut file = File::open(&path).map_err(fault::output("open", &path))?;
        let mut crc = Crc32c::default();
        let mut left = segment.length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            work.pace(2 * want as u64, attempt)?;
            let part = &mut buffer[..want];
            file.read_exact(part).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => damaged(&path, "is shorter than its checkpoint says"),
                _ => fault::output("read", &path)(error),
            })?;
            crc.update(part);
            to.append(part)?;
            left -= want as u64;
        }
        if crc.value() != segment.crc32c {
            return Err(damaged(&path, "has another checksum than its checkpoint says"));
        }
    }
    Ok(())
}

fn damaged(path: &Path, how: &str) -> Fault {
    fault::damaged_checkpoint(format!("'{}' {how}: the shard starts again from zero", path.display()))
}

/// Whether every segment is there and long enough. What is in it is verified when it is read.
pub fn all_there(folder: &Path, segments: &[Segment]) -> bool {
    segments.iter().all(|segment| {
        // A name with a folder in it is none that an attempt gave.
        let plain = !segment.name.contains('/');
        plain
            && fs::symlink_metadata(folder.join(&segment.name)).is_ok_and(|f| f.is_file() && f.len() >= segment.length)
    })
}

/// Bytes that earlier attempts wrote and no segment of the checkpoint counts: this attempt does them again.
pub fn uncounted(folder: &Path, counted: &[Segment]) -> Result<u64, Fault> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(fault::output("list", folder)(error)),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(fault::output("list", folder))?;
        let name = entry.file_name();
        if [ASSEMBLED, COPY, COMMIT].iter().any(|what| name.to_string_lossy().starts_with(what)) {
            continue;
        }
        let length = entry.metadata().map_err(fault::output("look at", &entry.path()))?.len();
        let counted = counted.iter().find(|segment| *segment.name == *name).map_or(0, |segment| segment.length);
        bytes += length.saturating_sub(counted);
    }
    Ok(bytes)
}

/// First part of the names of assembled outputs: they are copies of segments, not input read.
pub const ASSEMBLED: &str = "whole";
/// First part of the names of further results, written at once with a segment: the input was read once.
pub const COPY: &str = "copy";
/// First part of the name of a list of results before it is the commit.
pub const COMMIT: &str = "commit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        let mut crc = Crc32c::default();
        crc.update(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.value(), 0xe306_9283, "the check value of CRC-32C");
    }

    #[test]
    fn bytes_beyond_the_checkpoint_are_counted_as_done_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("old"), [0; 100]).unwrap();
        fs::write(folder.path().join("dead"), [0; 7]).unwrap();
        fs::write(folder.path().join("whole-x"), [0; 50]).unwrap();
        let counted = [Segment { name: "old".into(), length: 60, crc32c: 0 }];
        assert_eq!(uncounted(folder.path(), &counted).unwrap(), 47);
        assert_eq!(uncounted(&folder.path().join("none"), &[]).unwrap(), 0);
    }

    #[test]
    fn room_is_given_back_up_to_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(folder.path(), "own".into(), 0).unwrap();
        writer.append(b"counted, and not").unwrap();
        writer.give_back(7).unwrap();
        assert_eq!(fs::read(writer.path()).unwrap(), b"counted");
        writer.give_back(0).unwrap();
        assert!(!writer.path().exists());
    }

    #[test]
    fn a_segment_that_is_missing_short_or_elsewhere_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("old"), [0; 10]).unwrap();
        let there = |name: &str, length| all_there(folder.path(), &[Segment { name: name.into(), length, crc32c: 0 }]);
        assert!(there("old", 10) && there("old", 9));
        assert!(!there("old", 11) && !there("new", 0) && !there("../passwd", 0));
    }
}
