//! Making a shard's result visible, exactly once (P5, P6): the core says which step comes next, this does it.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use hyperflow_api::{ids::ShardIndex, message::FailureClass};
use hyperflow_core::{
    job::Output,
    publish::{Answer, Content, Step},
};

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
    /// Does what a step says with the store; `staged` is what the task has produced.
    pub fn carry_out(&self, step: Step, staged: Option<&Writer>) -> Result<Answer, Fault> {
        let commit = self.commit_path();
        match (step, staged) {
            (Step::Look | Step::LookAgain, _) => return self.look(&commit),
            (Step::Sync(_), Some(staged)) => staged.sync()?,
            (Step::Commit(_), Some(staged)) => {
                self.attempt.go_on()?;
                if store::link_new(staged.path(), &commit)? == Created::Before {
                    // What is staged stays for the sweeper, because a checkpoint may name it (P12, P21).
                    return Ok(Answer::Found);
                }
            }
            (Step::SyncCommit(_), _) => store::sync_folder(store::parent(&commit))?,
            (Step::SyncFound, _) => store::sync_found(&commit)?,
            (Step::Sum, _) => {
                self.look(&commit)?;
                return Ok(Answer::Summed(Content { bytes: self.length, crc32c: self.checksum(&commit)? }));
            }
            (Step::Name(_), _) => self.name(&commit)?,
            (step, _) => return Err(out_of_order(format!("{step:?} is no step of the store"))),
        }
        Ok(Answer::Done)
    }

    /// Whether an earlier attempt has committed the shard.
    fn look(&self, commit: &Path) -> Result<Answer, Fault> {
        let Some(found) = store::look(commit)? else { return Ok(Answer::Nothing) };
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
        Ok(Answer::Found)
    }

    fn commit_path(&self) -> PathBuf {
        self.root.join(self.work.layout.commit(self.index))
    }

    /// Gives the commit the name that the user asked for.
    fn name(&self, commit: &Path) -> Result<(), Fault> {
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

/// The steps of publishing and their answers do not fit: a fault of this program, and another attempt may do better.
pub fn out_of_order(message: String) -> Fault {
    fault::try_again(FailureClass::Application, "OutOfOrder", message)
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
