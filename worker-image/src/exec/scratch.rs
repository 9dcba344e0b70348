//! An attempt's own directory in the worker's scratch space: what the program is given to read and write, gone with the
//! attempt.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use hyperflow_api::ids::ShardIndex;

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    logs,
};

/// Bytes that the smallest block of a file counts, as `st_blocks` does.
const BLOCK: u64 = 512;

/// The directory, removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Makes one that nobody else has.
    pub fn new(index: ShardIndex, attempt: &Attempt) -> Result<Self, Fault> {
        let temporary = std::env::temp_dir();
        let prefix = format!("{index:06}-a{}-", attempt.grant().attempt);
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(&temporary);
        // What a program makes can be in the way of a plain removal, so this is done here.
        let root = made.map_err(fault::output("create a folder in", &temporary))?.keep();
        let scratch = Self { root };
        let temporary = scratch.temporary();
        fs::create_dir(&temporary).map_err(fault::output("create", &temporary))?;
        Ok(scratch)
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
        size(&self.root).0
    }

    /// Bytes of the output so far, and how many files it is.
    pub fn output_so_far(&self) -> (u64, u64) {
        size(&self.output())
    }
}

/// Bytes on disk, and number of files. What vanishes meanwhile counts nothing.
fn size(path: &Path) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        bytes += found.blocks() * BLOCK;
        files += 1;
        if found.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten();
            left.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
    }
    (bytes, files)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = match fs::remove_dir_all(&self.root) {
            // A folder that forbids its owner to change it: caches of build tools do that.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                allow(&self.root).and_then(|()| fs::remove_dir_all(&self.root))
            }
            removed => removed,
        };
        if let Err(error) = removed {
            let fault = fault::output("remove", &self.root)(error);
            tracing::warn!(error = logs::causes(&fault), "scratch space stays taken");
        }
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
