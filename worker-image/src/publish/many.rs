//! Several results of one shard become visible as one (P5): all are staged, then one create-only list that names them is
//! the commit; final names are given from that list only, by anyone.
//!
//! The staged files get a second name beside the commit first, in a folder of the attempt's own, because staging is swept
//! and final names must be given for as long as the commit stands. The files of a directory, of which there may be many,
//! move there with their folder.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use hyperflow_api::{
    ids::{JobUid, ShardIndex},
    message::FailureClass,
};
use hyperflow_core::{layout::Layout, paths::is_plain, publish::Content};
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
    /// Of each file, if they are copies; of all one after the other, if they are those of a directory.
    bytes: u64,
    crc32c: u32,
    /// Final names, relative to the output's directory, in the order of the files.
    names: Vec<String>,
    /// Of a directory: size and CRC-32C of each file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<Vec<(u64, u32)>>,
}

/// A directory that is a result, in staging: its files are durable, and called 1, 2, 3.
#[derive(Debug)]
pub struct Tree {
    /// Where they are.
    pub folder: PathBuf,
    /// The path of each in the result, and what is in it.
    pub files: Vec<(String, Content)>,
    /// All of them, one after the other.
    pub content: Content,
}

impl Tree {
    /// Name of the file after so many others.
    pub fn file_name(before: usize) -> String {
        file_name(before + 1)
    }
}

/// Moves the files of a directory to where the commit will name them, durably.
pub fn stage_tree(to: &Publisher<'_>, tree: &Tree) -> Result<(), Fault> {
    let folder = to.folder();
    store::sync_folder(&tree.folder)?;
    fs::rename(&tree.folder, &folder).map_err(fault::output("rename", &tree.folder))?;
    store::sync_folder(store::parent(&folder))
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
pub fn commit(to: &Publisher<'_>, path: &Path, content: Content, tree: Option<&Tree>) -> Result<Created, Fault> {
    let folder = to.folder();
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Content { bytes, crc32c } = content;
    let (job, index) = (to.work.brief.uid.clone(), to.index);
    let names = match (tree, to.names) {
        (Some(tree), [root, ..]) => tree.files.iter().map(|(path, _)| format!("{root}/{path}")).collect(),
        (_, names) => names.to_vec(),
    };
    let files = tree.map(|tree| tree.files.iter().map(|(_, content)| (content.bytes, content.crc32c)).collect());
    let commit = Commit { job, index, folder: name, bytes, crc32c, names, files };
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

fn folder_of(path: &Path, commit: &Commit) -> Result<PathBuf, Fault> {
    if commit.folder.contains('/') || !commit.folder.starts_with(&format!("{}.", commit.index)) {
        return Err(damaged(path, "it names a folder that is not its own"));
    }
    Ok(store::parent(path).join(&commit.folder))
}

/// Gives each committed file the name that the list says.
pub fn name(to: &Publisher<'_>, path: &Path) -> Result<(), Fault> {
    let commit = read(path)?;
    if commit.index != to.index || !names_results(to, &commit) {
        return Err(damaged(path, "it names other results"));
    }
    let folder = folder_of(path, &commit)?;
    let mut files = Vec::with_capacity(commit.names.len());
    for place in 0..commit.names.len() {
        let file = folder.join(Tree::file_name(place));
        let bytes = commit.files.as_ref().map_or(Some(commit.bytes), |files| Some(files.get(place)?.0));
        match fs::symlink_metadata(&file) {
            Ok(found) if Some(found.len()) == bytes => files.push(file),
            Ok(_) => return Err(damaged(&file, "it has another size")),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(&file, "it is gone")),
            Err(error) => return Err(fault::output("look at", &file)(error)),
        }
    }
    to.name(files.iter().map(PathBuf::as_path).zip(commit.names.iter().map(String::as_str)))
}

/// Whether the list names the shard's results and no others.
fn names_results(to: &Publisher<'_>, commit: &Commit) -> bool {
    match (to.tree, to.names) {
        (true, [root, ..]) => commit
            .names
            .iter()
            .all(|name| name.strip_prefix(root.as_str()).and_then(|rest| rest.strip_prefix('/')).is_some_and(is_plain)),
        _ => commit.names == to.names,
    }
}
