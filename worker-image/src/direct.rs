//! Writing past the page cache, where the file system can: a copy of a file that is larger than memory gains nothing from
//! being in it, and the time that filling it takes is most of the time of a copy (docs/bench.md has figures).

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::{Deref, DerefMut},
    os::unix::fs::FileExt,
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// What the kernel wants places, lengths and addresses to be multiples of; no common file system wants more.
const ALIGNED: usize = 4096;

/// Bytes that can be written directly from their beginning.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// So many zeros.
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNED];
        let start = bytes.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        Self { bytes, start, length }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// A file that is written directly while that can be done.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    direct: bool,
}

impl DirectFile {
    /// Of an open file; `direct` says whether to try.
    pub fn new(file: File, direct: bool) -> Self {
        let direct = direct && set_direct(&file, true).is_ok();
        Self { file, direct }
    }

    /// Writes all of `bytes` at `offset`. Doing so twice is the same, so what a direct write left half done is no harm.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.direct && !is_aligned(bytes, offset) {
            self.go_on_buffered()?;
        }
        match self.file.write_all_at(bytes, offset) {
            Err(error) if self.direct && error.kind() == ErrorKind::InvalidInput => {
                self.go_on_buffered()?;
                self.file.write_all_at(bytes, offset)
            }
            written => written,
        }
    }

    fn go_on_buffered(&mut self) -> io::Result<()> {
        self.direct = false;
        set_direct(&self.file, false)
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    let whole = offset.is_multiple_of(ALIGNED as u64) && bytes.len().is_multiple_of(ALIGNED);
    whole && bytes.as_ptr().align_offset(ALIGNED) == 0
}

fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn whatever_its_size_and_place_the_file_has_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, 4095, 4096, 5000, 1 << 20, (1 << 20) + 1, (3 << 20) + 123] {
            let bytes: Vec<u8> = (0..size).map(|at: usize| u8::try_from((at * 31 / 8) % 251).unwrap()).collect();
            let path = folder.path().join(size.to_string());
            let mut file = DirectFile::new(File::create_new(&path).unwrap(), true);
            let mut buffer = Buffer::new(1 << 20);
            for (number, part) in bytes.chunks(1 << 20).enumerate() {
                buffer[..part.len()].copy_from_slice(part);
                file.write_at(&buffer[..part.len()], (number << 20) as u64).unwrap();
            }
            assert!(fs::read(&path).unwrap() == bytes, "{size} bytes");
        }
    }
}
