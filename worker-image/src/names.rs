//! Names of results, before anything is written: none is taken, and no two are one.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use hyperflow_api::{ids::ShardIndex, message::FailureClass};
use hyperflow_core::{
    job::{Job, Named, Output, Task},
    layout::FOLDER,
    plan::Shard,
};

use crate::{
    fault::{self, Fault},
    plan_file::PlanFile,
    store,
    work::{Work, directory},
};

/// Most names of a folder that are listed; in one with more each name is looked for.
const LISTED: usize = 100_000;

/// Names of a shard's results in a run, relative to the output's directory; none for a job without output. `id` is the
/// shard's.
pub fn of(job: &Job, run: u32, index: ShardIndex, id: &str, shard: &Shard) -> Vec<String> {
    let Some(output) = &job.output else { return Vec::new() };
    let copies = if let Task::Copy { copies } = job.task { copies } else { 1 };
    (1..=copies).map(|copy| output.name(Named { index, id, file: first(shard), copy, run })).collect()
}

/// The first name of a result that something has already.
pub fn taken(work: &Work, plan: &PlanFile) -> Result<Option<String>, Fault> {
    let Some(output) = &work.job.output else { return Ok(None) };
    let root = directory(&output.url);
    if store::look(root)?.is_none() {
        return Ok(None);
    }
    let mut folder = Folder::default();
    let mut taken = last_taken(work)?;
    plan.each(|index, shard| {
        for name in of(&work.job, work.brief.run, index, &shard.id(), shard) {
            if taken.is_none() && folder.has(&root.join(&name))? {
                taken = Some(name);
            }
        }
        Ok(())
    })?;
    Ok(taken)
}

/// The name of the last command's result, if something has it already. That is never a result of an earlier owner that
/// counts as ours (P31): it was made of that job's report.
pub fn last_taken(work: &Work) -> Result<Option<String>, Fault> {
    let (Some(output), Some(last)) = (&work.job.output, last(work)) else { return Ok(None) };
    Ok(store::look(&directory(&output.url).join(&last))?.map(|_| last))
}

/// Name of the last command's result.
fn last(work: &Work) -> Option<String> {
    work.job.finally.as_ref()?.name(work.brief.run)
}

/// The names in the folder of the last name: one listing answers for a million results.
#[derive(Default)]
struct Folder {
    path: PathBuf,
    /// None: there are too many.
    names: Option<HashSet<std::ffi::OsString>>,
}

impl Folder {
    fn has(&mut self, path: &Path) -> Result<bool, Fault> {
        let parent = store::parent(path);
        if self.path != parent {
            self.path = parent.into();
            self.names = list(parent)?;
        }
        match &self.names {
            Some(names) => Ok(names.contains(path.file_name().unwrap_or_default())),
            None => Ok(store::look(path)?.is_some()),
        }
    }
}

fn list(folder: &Path) -> Result<Option<HashSet<std::ffi::OsString>>, Fault> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Some(HashSet::new()));
        }
        Err(error) => return Err(fault::output("list", folder)(error)),
    };
    let mut names = HashSet::new();
    for entry in entries {
        names.insert(entry.map_err(fault::output("list", folder))?.file_name());
        if names.len() > LISTED {
            return Ok(None);
        }
    }
    Ok(Some(names))
}

/// Refuses results of two shards under one name, and results in the folder of ours.
pub fn check_apart(work: &Work, plan: &PlanFile) -> Result<(), Fault> {
    let last = last(work);
    if last.is_none() && work.job.output.as_ref().is_none_or(Output::tells_shards_apart) {
        return Ok(());
    }
    // A million names are known by sixteen megabytes of hashes; only where two are alike the names are compared.
    let mut hashes = HashSet::new();
    let mut alike = None;
    plan.each(|index, shard| {
        for name in of(&work.job, work.brief.run, index, &shard.id(), shard) {
            if name.split('/').next() == Some(FOLDER) {
                return Err(collision(&format!(
                    "the result of '{}' would be '{name}', and '{FOLDER}' is Hyperflow's own",
                    first(shard)
                )));
            }
            if let Some(last) = last.as_ref().filter(|last| overlap(last, &name)) {
                return Err(collision_with_last(index, &name, last));
            }
            if !hashes.insert(hash(&name)) {
                alike.get_or_insert(name);
            }
        }
        Ok(())
    })?;
    match alike {
        Some(name) => Err(both(work, plan, &name)?),
        None => Ok(()),
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Names both inputs that would have one result.
fn both(work: &Work, plan: &PlanFile, name: &str) -> Result<Fault, Fault> {
    let mut inputs = Vec::new();
    plan.each(|index, shard| {
        if inputs.len() < 2 && of(&work.job, work.brief.run, index, &shard.id(), shard).iter().any(|its| its == name) {
            inputs.push(first(shard).to_owned());
        }
        Ok(())
    })?;
    let inputs: Vec<String> = inputs.iter().map(|input| format!("'{input}'")).collect();
    Ok(collision(&format!("the results of {} would both be '{name}'", inputs.join(" and "))))
}

fn first(shard: &Shard) -> &str {
    shard.pieces.first().map_or("", |piece| piece.file.path.as_str())
}

/// Whether two names are one, or one would have to be a directory for the other.
fn overlap(one: &str, other: &str) -> bool {
    let within = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('/'));
    one == other || within(one, other) || within(other, one)
}

fn collision_with_last(index: ShardIndex, name: &str, last: &str) -> Fault {
    let message = format!(
        "the result of shard {index}, '{name}', and that of `spec.finally`, '{last}', cannot both be there: correct \
         `spec.finally.path`; it may be changed until there is a plan"
    );
    fault::end_job(FailureClass::Store, "OutputNameCollision", message)
}

fn collision(what: &str) -> Fault {
    let message = format!(
        "{what}: correct `spec.output.path`, for example '{{dir}}{{name}}', or `spec.source`; they may be changed until \
         there is a plan"
    );
    fault::end_job(FailureClass::Store, "OutputNameCollision", message)
}
