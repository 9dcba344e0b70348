//! A file of the report that is being written.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::{
    fault::{self, Fault},
    store,
};

/// Bytes written at a time.
const BUFFER: usize = 64 << 10;

/// A new file, and the digest of what is in it.
pub struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    hasher: blake3::Hasher,
}

impl Writer {
    /// Makes it; it may not be there.
    pub fn create(path: &Path) -> Result<Self, Fault> {
        let file = BufWriter::with_capacity(BUFFER, store::create_new(path)?);
        Ok(Self { file, path: path.into(), hasher: blake3::Hasher::new() })
    }

    /// A fault of doing something to it.
    pub fn fault(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> Fault {
        fault::output(doing, &self.path)
    }

    /// Adds these bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(fault::output("write", &self.path))
    }

    /// Writes a line of a manifest; false when a manifest cannot hold it.
    pub fn entry(&mut self, entry: &str) -> Result<bool, Fault> {
        if entry.is_empty() || entry.contains('\n') || entry.ends_with('\r') {
            return Ok(false);
        }
        self.write(entry.as_bytes())?;
        self.write(b"\n")?;
        Ok(true)
    }

    /// Makes it durable, but for its name. Its content digest.
    pub fn finish(mut self) -> Result<String, Fault> {
        self.file.flush().map_err(self.fault("write"))?;
        self.file.get_ref().sync_all().map_err(self.fault("sync"))?;
        Ok(format!("blake3:{}", self.hasher.finalize().to_hex()))
    }
}
