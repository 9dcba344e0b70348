//! Several results of one shard become visible as one (P5): all are staged, then one create-only list that names them is
//! the commit; final names are given from that list only, by anyone.
//!
//! The staged files get a second name beside the commit first, in a folder of the attempt's own, because staging is swept
//! and final names must be given for as long as the commit stands.

use std::{fs, io::ErrorKind, path::Path};

use hyperflow_api::{
    ids::{JobUid, ShardIndex},
    message::FailureClass,
};
use hyperflow_core::{layout::Layout, publish::Content};
use serde::{Deserialize, Serialize};

use super::Publisher;
use crate::{
    fault::{self, Fault},
    segments::{self, Writer},
    store::{self, Created},
};

/// The commit of a shard with several results.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    job: JobUid,
    index: ShardIndex,
    /// Name of the folder with the files, beside the commit. They are called 1, 2, 3.
    folder: String,
    /// Of each file: they are copies.
    bytes: u64,
    crc32c: u32,
    /// Final names, relative to the output's directory, in the order of the files.
    names: Vec<String>,
}

/// Gives what is staged its second name, durably.
pub fn stage(to: &Publisher<'_>, staged: &[&Writer]) -> Result<(), Fault> {
    let folder = to.folder();
    store::make_folder(&folder)?;
    for (number, staged) in (1..).zip(staged) {
        if store::link_new(staged.path(), &folder.join(file_name(number)))? == Created::Before {
            return Err(super::out_of_order(format!("'{}' has files already", folder.display())));
        }
    }
    store::sync_folder(&folder)?;
    store::sync_folder(store::parent(&folder))
}

fn file_name(number: usize) -> String {
    number.to_string()
}

/// Creates the list. Whoever comes second removes what it staged.
pub fn commit(to: &Publisher<'_>, path: &Path, content: Content) -> Result<Created, Fault> {
    let folder = to.folder();
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Content { bytes, crc32c } = content;
    let (job, index, names) = (to.work.brief.uid.clone(), to.index, to.names.to_vec());
    let commit = Commit { job, index, folder: name, bytes, crc32c, names };
    let text = serde_json::to_vec(&commit).map_err(|error| fault::output("write", path)(error.into()))?;
    let stage = to.places.commits.join(to.work.layout.stage_folder(to.index));
    let aside = stage.join(Layout::private(segments::COMMIT, to.attempt.grant().epoch, &to.work.worker));
    let created = store::put_new(&aside, path, &text)?;
    if created == Created::Before {
        store::remove_tree(&folder)?;
    }
    Ok(created)
}

fn read(path: &Path) -> Result<Commit, Fault> {
    let bytes = fs::read(path).map_err(fault::output("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))
}

fn damaged(path: &Path, why: &str) -> Fault {
    let message = format!(
        "'{}' was changed after it was published: {why}. Create a new ShardJob with another `spec.output.url`",
        path.display()
    );
    fault::end_job(FailureClass::Store, "OutputDamaged", message)
}

/// What the commit says of each result.
pub fn content(path: &Path) -> Result<Content, Fault> {
    let Commit { bytes, crc32c, .. } = read(path)?;
    Ok(Content { bytes, crc32c })
}

/// Makes somebody else's commit durable (P6).
pub fn sync_found(to: &Publisher<'_>, path: &Path) -> Result<(), Fault> {
    let commit = read(path)?;
    store::sync_found(path)?;
    let folder = folder_of(path, &commit)?;
    for number in 1..=commit.names.len() {
        store::sync_found(&folder.join(file_name(number)))?;
    }
    // An attempt that found it late may have staged its own.
    match folder == to.folder() {
        true => Ok(()),
        false => store::remove_tree(&to.folder()),
    }
}

fn folder_of(path: &Path, commit: &Commit) -> Result<std::path::PathBuf, Fault> {
    if commit.folder.contains('/') || !commit.folder.starts_with(&format!("{}.", commit.index)) {
        return Err(damaged(path, "it names a folder that is not its own"));
    }
    Ok(store::parent(path).join(&commit.folder))
}

/// Gives each committed file the name that the list says.
pub fn name(to: &Publisher<'_>, path: &Path) -> Result<(), Fault> {
    let commit = read(path)?;
    if commit.names != to.names || commit.index != to.index {
        return Err(damaged(path, "it names other results"));
    }
    let folder = folder_of(path, &commit)?;
    for (number, name) in (1..).zip(to.names) {
        let file = folder.join(file_name(number));
        match fs::symlink_metadata(&file) {
            Ok(found) if found.len() == commit.bytes => to.name(&file, name)?,
            Ok(_) => return Err(damaged(&file, "it has another size")),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(&file, "it is gone")),
            Err(error) => return Err(fault::output("look at", &file)(error)),
        }
    }
    Ok(())
}
