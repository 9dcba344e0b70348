//! Making a shard's result visible, exactly once (P5, P6).

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use hyperflow_api::{
    ids::ShardIndex,
    message::{FailureClass, Published},
};
use hyperflow_core::job::Output;

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    segments::{Crc32c, Writer},
    store::{self, Created},
    work::Work,
};

/// Where the result of one shard belongs.
#[derive(Debug)]
pub struct Publisher<'a> {
    /// The job.
    pub work: &'a Work,
    /// Who publishes.
    pub attempt: &'a Attempt,
    /// The output, as the user wrote it.
    pub output: &'a Output,
    /// Where its directory really is.
    pub root: &'a Path,
    /// The shard.
    pub index: ShardIndex,
    /// Size of its result.
    pub length: u64,
}

impl Publisher<'_> {
    /// The result that an earlier attempt has committed, if one has. Its author may have died at any point after the
    /// commit, so everything that follows it is done again (P6).
    pub fn found(&self) -> Result<Option<Published>, Fault> {
        let commit = self.commit_path();
        let Some(found) = store::look(&commit)? else { return Ok(None) };
        if !found.is_file() || found.len() != self.length {
            let message = format!(
                "'{}' has {} bytes, and the result of shard {} has {}: it was changed after it was published. \
                 Create a new ShardJob with another `spec.output.url`",
                commit.display(),
                found.len(),
                self.index,
                self.length
            );
            return Err(fault::end_job(FailureClass::Store, "OutputDamaged", message));
        }
        store::sync_found(&commit)?;
        self.roll_forward(&commit)?;
        Ok(Some(Published { bytes: self.length, crc32c: self.checksum(&commit)?, found: true }))
    }

    /// Commits a staged file that is durable. If another attempt came first, its result is the shard's; what is staged
    /// then stays for the sweeper, because a checkpoint may name it (P12, P21).
    pub fn commit(&self, staged: &Writer) -> Result<Published, Fault> {
        let commit = self.commit_path();
        if store::link_new(staged.path(), &commit)? == Created::Before {
            let gone = || fault::output("read", &commit)(ErrorKind::NotFound.into());
            return self.found()?.ok_or_else(gone);
        }
        store::sync_folder(store::parent(&commit))?;
        self.roll_forward(&commit)?;
        let segment = staged.segment();
        Ok(Published { bytes: segment.length, crc32c: segment.crc32c, found: false })
    }

    fn commit_path(&self) -> PathBuf {
        self.root.join(self.work.layout.commit(self.index))
    }

    /// Gives the commit the name that the user asked for.
    fn roll_forward(&self, commit: &Path) -> Result<(), Fault> {
        let name = self.output.name(self.index);
        let path = self.root.join(&name);
        let folder = store::parent(&path);
        if folder != self.root {
            store::make_folders(folder)?;
            self.work.on_volume(FailureClass::Store, folder)?;
        }
        if store::link_new(commit, &path)? == Created::Before {
            return Err(exists(self.output, &name));
        }
        store::sync_folder(folder)
    }

    fn checksum(&self, path: &Path) -> Result<u32, Fault> {
        let mut file = File::open(path).map_err(fault::output("open", path))?;
        let mut buffer = vec![0; self.work.chunk()];
        let mut crc = Crc32c::default();
        let mut left = self.length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.work.pace(want as u64, self.attempt)?;
            file.read_exact(&mut buffer[..want]).map_err(fault::output("read", path))?;
            crc.update(&buffer[..want]);
            left -= want as u64;
        }
        Ok(crc.value())
    }
}

/// A file that is not ours has the name of a result.
pub fn exists(output: &Output, name: &str) -> Fault {
    let message = format!(
        "'{}{name}' exists and was not written by Hyperflow. It was not overwritten: move it away, or choose another \
         `spec.output.url`",
        output.url
    );
    fault::end_job(FailureClass::Store, "OutputExists", message)
}
