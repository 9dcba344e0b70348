//! Making a shard's result visible, exactly once (P5, P6): the core says which step comes next, this does it.
//!
//! With one result the commit is the result itself, under a name that depends on the shard alone. With several it is a
//! list of them: [`many`].

mod many;

use std::{
    collections::BTreeSet,
    fs::{File, Metadata},
    io::Read,
    path::{Path, PathBuf},
};

use hyperflow_api::{ids::ShardIndex, message::FailureClass};
use hyperflow_core::{
    layout::Layout,
    publish::{Answer, Content, Step},
};

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    segments::{Crc32c, Writer},
    store::{self, Created},
    work::{Places, Work},
};

pub use self::many::Tree;

/// What a task has produced.
#[derive(Debug)]
pub enum Staged<'a> {
    /// A file for each result.
    Files(Vec<&'a Writer>),
    /// A directory, which is published as one.
    Tree(&'a Tree),
}

impl Default for Staged<'_> {
    fn default() -> Self {
        Self::Files(Vec::new())
    }
}

/// Where the result of one shard belongs.
#[derive(Debug)]
pub struct Publisher<'a> {
    /// The job.
    pub work: &'a Work,
    /// Who publishes.
    pub attempt: &'a Attempt,
    /// Where the job's folders really are.
    pub places: &'a Places,
    /// Under which job's folder commits are (P31).
    pub commits: &'a Layout,
    /// Names of the results, relative to the output's directory; none for a job without output.
    pub names: &'a [String],
    /// The shard.
    pub index: ShardIndex,
    /// Size of its result, where it is known beforehand.
    pub length: Option<u64>,
    /// Its one result is a directory.
    pub tree: bool,
}

impl Publisher<'_> {
    /// How many files an attempt makes.
    pub fn results(&self) -> usize {
        self.names.len().max(1)
    }

    /// Whether the commit is a list of files, and not the file itself.
    fn is_list(&self) -> bool {
        self.tree || self.names.len() > 1
    }

    /// Does what a step says with the store; `staged` is what the task has produced.
    pub fn carry_out(&self, step: Step, staged: &Staged<'_>) -> Result<Answer, Fault> {
        let commit = self.places.commits.join(self.commits.commit(self.index));
        let list = self.is_list();
        match (step, staged) {
            (Step::Look | Step::LookAgain, _) => return self.look(&commit),
            (Step::Sync(_), Staged::Tree(tree)) => many::stage_tree(self, tree)?,
            (Step::Sync(_), Staged::Files(files)) if !files.is_empty() => {
                files.iter().try_for_each(|file| file.sync())?;
                if list {
                    many::stage(self, files)?;
                }
            }
            (Step::Commit(content), _) => {
                self.attempt.go_on()?;
                let created = match staged {
                    Staged::Tree(tree) => many::commit(self, &commit, content, Some(tree))?,
                    Staged::Files(_) if list => many::commit(self, &commit, content, None)?,
                    Staged::Files(files) => {
                        let one = files.first().ok_or_else(|| out_of_order("nothing was staged".into()))?;
                        store::link_new(one.path(), &commit)?
                    }
                };
                if created == Created::Before {
                    // What is staged stays for the sweeper, because a checkpoint may name it (P12, P21).
                    return Ok(Answer::Found);
                }
            }
            (Step::SyncCommit(_), _) => store::sync_folder(store::parent(&commit))?,
            (Step::SyncFound, _) if list => many::sync_found(self, &commit)?,
            (Step::SyncFound, _) => store::sync_found(&commit)?,
            (Step::Sum, _) if list => return many::content(&commit).map(Answer::Summed),
            (Step::Sum, _) => return self.sum(&commit).map(Answer::Summed),
            (Step::Name(_), _) if list => many::name(self, &commit)?,
            (Step::Name(_), _) => {
                let named = self.names.iter().map(|name| (commit.as_path(), name.as_str()));
                self.name(named)?;
            }
            (step, _) => return Err(out_of_order(format!("{step:?} is no step of the store"))),
        }
        Ok(Answer::Done)
    }

    /// Whether an earlier attempt has committed the shard.
    fn look(&self, commit: &Path) -> Result<Answer, Fault> {
        let Some(found) = store::look(commit)? else { return Ok(Answer::Nothing) };
        if !found.is_file() || (!self.is_list() && self.length.is_some_and(|length| length != found.len())) {
            return Err(self.damaged(commit, &found));
        }
        Ok(Answer::Found)
    }

    fn damaged(&self, commit: &Path, found: &Metadata) -> Fault {
        let expected = self.length.map_or("another size".into(), |length| length.to_string());
        let message = format!(
            "'{}' has {} bytes, and the result of shard {} has {expected}: it was changed after it was published. Create \
             a new ShardJob with another `spec.output.url`",
            commit.display(),
            found.len(),
            self.index,
        );
        fault::end_job(FailureClass::Store, "OutputDamaged", message)
    }

    /// Gives committed files the names that the user asked for, durably.
    fn name<'f>(&self, named: impl Iterator<Item = (&'f Path, &'f str)>) -> Result<(), Fault> {
        give_names(self.work, self.places, named)
    }

    fn sum(&self, path: &Path) -> Result<Content, Fault> {
        let mut file = File::open(path).map_err(fault::output("open", path))?;
        let bytes = file.metadata().map_err(fault::output("look at", path))?.len();
        let mut buffer = vec![0; self.work.chunk()];
        let mut crc = Crc32c::default();
        let mut left = bytes;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.work.pace(want as u64, self.attempt)?;
            file.read_exact(&mut buffer[..want]).map_err(fault::output("read", path))?;
            crc.update(&buffer[..want]);
            left -= want as u64;
        }
        Ok(Content { bytes, crc32c: crc.value() })
    }

    /// A private folder for files that are committed together.
    fn folder(&self) -> PathBuf {
        let (epoch, worker) = (self.attempt.grant().epoch, &self.work.worker);
        self.places.commits.join(self.commits.commit_folder(self.index, epoch, worker))
    }
}

/// Gives committed files names in the output's directory, durably. Each folder is made sure of once.
pub fn give_names<'f>(
    work: &Work,
    places: &Places,
    named: impl Iterator<Item = (&'f Path, &'f str)>,
) -> Result<(), Fault> {
    let Some(root) = &places.output else { return Ok(()) };
    let mut folders = BTreeSet::new();
    for (file, name) in named {
        let path = root.join(name);
        let folder = store::parent(&path);
        if folder != root && !folders.contains(folder) {
            store::make_folders(folder)?;
            work.on_volume(FailureClass::Store, folder)?;
        }
        if store::link_new(file, &path)? == Created::Before {
            return Err(exists(work, name));
        }
        folders.insert(folder.to_path_buf());
    }
    folders.iter().try_for_each(|folder| store::sync_folder(folder))
}

/// The steps of publishing and their answers do not fit: a fault of this program, and another attempt may do better.
pub fn out_of_order(message: String) -> Fault {
    fault::try_again(FailureClass::Application, "OutOfOrder", message)
}

/// A file that is not ours has the name of a result.
pub fn exists(work: &Work, name: &str) -> Fault {
    let message = format!(
        "'{}{name}' exists and was not written by Hyperflow. It was not overwritten: move it away, or choose another \
         `spec.output.url`",
        work.job.output.as_ref().map_or("", |output| &output.url)
    );
    fault::end_job(FailureClass::Store, "OutputExists", message)
}
