//! The plan lease: prove that the output can be published to exactly once, claim its names, list the input, and store
//! the plan (P4, P8).
//!
//! Everything that can refuse the job without writing is looked at first, so that a refused job leaves nothing behind.
//! The claim is the last thing before the plan, and is never taken back: another attempt of the same lease may rely on it.

use std::{
    collections::HashSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use hyperflow_api::message::{FailureClass, Planned};
use hyperflow_core::{
    job::{Output, Source},
    layout::{FOLDER, Layout},
    plan::{InputFile, Plan},
};

use crate::{
    attempt::Attempt,
    claim,
    fault::{self, Fault},
    input, lookup, publish,
    store::{self, Created},
    work::Work,
};

/// Makes the plan, or finds it made.
pub fn run(work: &Work, attempt: &Attempt) -> Result<Planned, Fault> {
    let (output, folder) = work.output()?;
    if let Some(planned) = stored(work, output, folder)? {
        return Ok(planned);
    }
    let plan = list(work)?;
    if let Some(owner) = claim::of(folder, output)?.filter(|owner| !owner.is_of(work)) {
        return Err(owner.refusal(output));
    }
    if let Some(name) = taken(output, folder, plan.shards())? {
        // Results of ours imply a plan of ours: then another attempt was faster, and this one is late.
        return stored(work, output, folder)?.ok_or_else(|| publish::exists(output, &name));
    }
    attempt.go_on()?;
    prepare(work, attempt, output, folder)?;
    write(work, attempt, output, folder, &plan)
}

/// The plan that is stored already: whoever reports it makes it durable first (P6).
fn stored(work: &Work, output: &Output, folder: &Path) -> Result<Option<Planned>, Fault> {
    let path = folder.join(work.layout.plan());
    if store::look(&path)?.is_none() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(fault::output("read the plan", &path))?;
    let refuse = |reason, message| fault::end_job(FailureClass::Store, reason, message);
    let plan = Plan::decode(&bytes, None).map_err(|error| {
        refuse("PlanDamaged", format!("'{}' cannot be used: {error}. Create a new ShardJob", path.display()))
    })?;
    if !plan.is_of(&work.brief.uid, &work.job.frozen) {
        let message = format!(
            "'{}' was made for an earlier `spec.source`, `spec.task` or `spec.output` of this ShardJob. Set them back, \
             or create a new ShardJob",
            path.display()
        );
        return Err(refuse("PlanMismatch", message));
    }
    store::sync_found(&path)?;
    Ok(Some(summary(work, output, &plan, &bytes)))
}

fn summary(work: &Work, output: &Output, plan: &Plan, bytes: &[u8]) -> Planned {
    plan.summary(bytes, format!("{}{}", output.url, work.layout.plan()))
}

/// The input as it is now, cut into shards.
fn list(work: &Work) -> Result<Plan, Fault> {
    let refuse = |reason, message| fault::end_job(FailureClass::BadInput, reason, message);
    let Source::File { url, bytes_per_shard } = &work.job.source else {
        return Err(refuse("NoInput", "numbers need no plan, and one was asked for".into()));
    };
    lookup::is_there(url)?;
    let (file, path) = input::open(work, url)?;
    let found = file.metadata().map_err(fault::input("look at", &path))?;
    if !found.is_file() {
        return Err(lookup::no_file(url));
    }
    let file = InputFile { url: url.clone(), size: found.len(), version: input::version(&found) };
    Plan::of_file(&work.brief.uid, &work.job.frozen, file, *bytes_per_shard).map_err(|error| {
        refuse(
            "TooManyShards",
            format!("'{url}': {error} in `spec.source.files`, which may be changed until there is a plan"),
        )
    })
}

/// The first name of a result that something has already.
fn taken(output: &Output, folder: &Path, shards: u32) -> Result<Option<String>, Fault> {
    let mut names = (0..shards).map(|index| output.name(index));
    if output.path.rsplit_once('/').is_some_and(|(folders, _)| folders.contains("{index}")) {
        for name in names {
            if store::look(&folder.join(&name))?.is_some() {
                return Ok(Some(name));
            }
        }
        return Ok(None);
    }
    // All results are in one folder: one listing answers for a million names.
    let (within, _) = output.path.rsplit_once('/').unwrap_or_default();
    let folder = folder.join(within);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault::output("list", &folder)(error)),
    };
    let mut there = HashSet::new();
    for entry in entries {
        there.insert(entry.map_err(fault::output("list", &folder))?.file_name());
    }
    Ok(names.find(|name| there.contains(Path::new(name).file_name().unwrap_or_default())))
}

/// Makes the folders, proves that the store is create-only, and claims the names. When it refuses, it removes what it
/// made.
fn prepare(work: &Work, attempt: &Attempt, output: &Output, folder: &Path) -> Result<(), Fault> {
    let mut made = Vec::new();
    let refusal = match fence(work, attempt, output, folder, &mut made) {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    for folder in made.iter().rev() {
        // Only what is empty goes: another attempt, or another job, may have begun to use it.
        if let Err(error) = fs::remove_dir(folder) {
            tracing::info!(%error, folder = %folder.display(), "a folder stays");
        }
    }
    Err(refusal)
}

fn fence(work: &Work, attempt: &Attempt, output: &Output, folder: &Path, made: &mut Vec<PathBuf>) -> Result<(), Fault> {
    // The nearest folder that is there decides where the new ones will really be.
    let nearest = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder);
    if nearest != folder {
        work.on_volume(FailureClass::Store, nearest)?;
    }
    made.extend(store::make_folders(folder)?);
    let root = work.on_volume(FailureClass::Store, folder)?;
    let own = root.join(work.layout.root());
    made.extend(store::make_folders(&root.join(FOLDER).join("claims"))?);
    made.extend(store::make_folders(&own)?);
    let private = |what| own.join(Layout::private(what, attempt.grant().epoch, &work.worker));
    store::probe(&private("probe"), &private("twice"))?;
    match claim::take(work, &private("claim"), &root, output)? {
        Some(owner) => Err(owner.refusal(output)),
        None => Ok(()),
    }
}

fn write(work: &Work, attempt: &Attempt, output: &Output, folder: &Path, plan: &Plan) -> Result<Planned, Fault> {
    // Where a plan is, the folders were: a late attempt must not make again what a sweep has renamed (P24).
    if let Some(planned) = stored(work, output, folder)? {
        return Ok(planned);
    }
    attempt.go_on()?;
    let own = folder.join(work.layout.root());
    for name in ["pub", "stage", "ckpt", "records"] {
        store::make_folders(&own.join(name))?;
    }
    let path = folder.join(work.layout.plan());
    let bytes = plan.encode().map_err(|error| fault::output("write", &path)(std::io::Error::other(error)))?;
    let aside = own.join(Layout::private("plan", attempt.grant().epoch, &work.worker));
    match store::put_new(&aside, &path, &bytes)? {
        Created::Us => Ok(summary(work, output, plan, &bytes)),
        // Another attempt of the lease was faster: its plan is the plan.
        Created::Before => stored(work, output, folder)?
            .ok_or_else(|| fault::output("read the plan", &path)(ErrorKind::NotFound.into())),
    }
}

#[cfg(test)]
mod tests {
    use hyperflow_api::message::Target;

    use super::*;
    use crate::tests::{Volume, names, noise, start, sweep};

    #[test]
    fn a_planner_that_wakes_after_the_sweep_makes_no_folder_again() {
        let volume = Volume::new(&noise(10_000), "4Ki");
        let late = volume.work(1);
        let listed = list(&late).unwrap();
        let first = crate::tests::plan(&volume.work(2)).unwrap();
        sweep(&late).unwrap();
        let (output, folder) = late.output().unwrap();
        let attempt = start(Target::Plan, 5, None).attempt;
        assert_eq!(write(&late, &attempt, output, folder, &listed).unwrap(), first);
        assert_eq!(names(&volume.own("")), ["plan", "pub", "records"]);
    }
}
