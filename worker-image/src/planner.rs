//! The plan lease: list the input, prove that the output can be published to exactly once, claim its names, and store the
//! plan (P4, P8, P31).
//!
//! Everything that can refuse the job without writing is looked at first, so that a refused job leaves nothing behind; the
//! plan grows in a file of the worker's own scratch space until then. The claim is the last thing before the plan, and is
//! never taken back: another attempt of the same lease may rely on it.

use std::{fs, io::ErrorKind, path::PathBuf};

use hyperflow_api::message::{FailureClass, Planned};
use hyperflow_core::{
    claim::Next,
    layout::{CLAIMS, Layout},
    worker::Outcome,
};

use crate::{
    attempt::Attempt,
    claim, draft,
    fault::{self, Fault},
    names,
    plan_file::PlanFile,
    publish,
    store::{self, Created},
    work::Work,
};

/// Makes the plan, or finds it made.
pub fn run(work: &Work, attempt: &Attempt) -> Result<Outcome, Fault> {
    if let Some(planned) = stored(work)? {
        return Ok(Outcome::Planned(planned));
    }
    let plan = draft::make(work, attempt)?;
    match claim::next(work, attempt)? {
        Next::Ask(owner) => return Ok(Outcome::Claimed(owner)),
        Next::Refuse(owner) => return Err(claim::refusal(work, &owner, REFUSED)),
        Next::Succeed | Next::Heir if claim::has_alike(work, &plan)? => {
            if let Some(name) = names::last_taken(work)? {
                return Err(publish::exists(work, &name));
            }
        }
        Next::Take | Next::Ours | Next::Succeed | Next::Heir => {
            if let Some(name) = names::taken(work, &plan)? {
                // Results of ours imply a plan of ours: then another attempt was faster, and this one is late.
                let planned = stored(work)?.ok_or_else(|| publish::exists(work, &name))?;
                return Ok(Outcome::Planned(planned));
            }
        }
    }
    names::check_apart(work, &plan)?;
    attempt.go_on()?;
    prepare(work, attempt)?;
    write(work, attempt, &plan).map(Outcome::Planned)
}

/// What is told to whoever may not use another job's names.
const REFUSED: &str = ". Nothing was written. If it was deleted, set `spec.output.existing` to 'Reuse' to go on from its \
                       results (same input and task)";

/// Where the plan is, or will be.
fn plan_path(work: &Work) -> Result<PathBuf, Fault> {
    Ok(work.records_directory()?.join(work.layout.plan()))
}

/// The plan that is stored already: whoever reports it makes it durable first (P6).
fn stored(work: &Work) -> Result<Option<Planned>, Fault> {
    let path = plan_path(work)?;
    if store::look(&path)?.is_none() {
        return Ok(None);
    }
    let stored = PlanFile::open(&path, None)?;
    if !stored.plan().is_of(&work.brief.uid, &work.job.frozen) {
        let message = format!(
            "'{}' was made for an earlier `spec.source`, `spec.task`, `spec.output` or `spec.records` of this ShardJob. \
             Set them back, or create a new ShardJob",
            path.display()
        );
        return Err(fault::end_job(FailureClass::Store, "PlanMismatch", message));
    }
    store::sync_found(&path)?;
    Ok(Some(stored.plan().summary(url(work))))
}

/// Of the plan, as people read it.
fn url(work: &Work) -> String {
    work.records_url(&work.layout.plan())
}

/// Makes the folders, proves that the store is create-only, and claims the names. When it refuses, it removes what it
/// made.
fn prepare(work: &Work, attempt: &Attempt) -> Result<(), Fault> {
    let mut made = Vec::new();
    let refusal = match fence(work, attempt, &mut made) {
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

fn fence(work: &Work, attempt: &Attempt, made: &mut Vec<PathBuf>) -> Result<(), Fault> {
    let wanted = [work.commits_directory()?, work.records_directory()?];
    for folder in &wanted {
        // The nearest folder that is there decides where the new ones will really be.
        let nearest = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder);
        work.on_volume(FailureClass::Store, nearest)?;
        made.extend(store::make_folders(folder)?);
    }
    let places = work.places()?;
    let own = places.commits.join(work.layout.root());
    made.extend(store::make_folders(&places.records.join(work.layout.root()))?);
    made.extend(store::make_folders(&own)?);
    let private = |what| own.join(Layout::private(what, attempt.grant().epoch, &work.worker));
    store::probe(&private("probe"), &private("twice"))?;
    if work.job.output.is_none() {
        return Ok(());
    }
    made.extend(store::make_folders(&places.commits.join(CLAIMS))?);
    claim::take(work, &private("claim"), &places)?;
    match claim::next(work, attempt)? {
        Next::Ours | Next::Heir => Ok(()),
        // Another job was faster. Whoever may take over from it begins again.
        Next::Take | Next::Succeed => {
            Err(fault::try_again(FailureClass::Store, "OutputClaimed", "the claim moved".into()))
        }
        Next::Ask(owner) | Next::Refuse(owner) => Err(claim::refusal(work, &owner, REFUSED)),
    }
}

fn write(work: &Work, attempt: &Attempt, plan: &PlanFile) -> Result<Planned, Fault> {
    // Where a plan is, the folders were: a late attempt must not make again what a sweep has renamed (P24).
    if let Some(planned) = stored(work)? {
        return Ok(planned);
    }
    attempt.go_on()?;
    let places = work.places()?;
    // Commits are where the first owner of the names puts them, who may be gone without ever having come so far.
    let first = claim::hold(work, &places)?;
    store::make_folders(&places.commits.join(first.root()).join("pub"))?;
    for name in work.layout.temporary() {
        store::make_folders(&places.commits.join(work.layout.root()).join(name))?;
    }
    store::make_folders(&places.records.join(work.layout.records_folder()))?;
    let path = plan_path(work)?;
    let private = Layout::private("plan", attempt.grant().epoch, &work.worker);
    let aside = places.records.join(work.layout.root()).join(private);
    match store::put_copy(&aside, &path, plan.file())? {
        Created::Us => Ok(plan.plan().summary(url(work))),
        // Another attempt of the lease was faster: its plan is the plan.
        Created::Before => {
            stored(work)?.ok_or_else(|| fault::output("read the plan", &path)(ErrorKind::NotFound.into()))
        }
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
        let attempt = start(Target::Plan, 5, None).attempt;
        let listed = draft::make(&late, &attempt).unwrap();
        let first = crate::tests::plan(&volume.work(2)).unwrap();
        sweep(&late).unwrap();
        assert_eq!(write(&late, &attempt, &listed).unwrap(), first);
        assert_eq!(names(&volume.own("")), ["failed.txt", "plan", "pub", "records", "report.jsonl"]);
    }
}
