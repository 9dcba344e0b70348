//! Which job owns the names of results in an output directory (P8, P31): the claims in the store.

use std::{fs, path::Path};

use hyperflow_api::message::{FailureClass, Owner};
use hyperflow_core::{
    claim::{self, Claim, Next},
    layout::Layout,
};

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    plan_file::PlanFile,
    store,
    work::{Places, Work, directory},
};

/// Owners in a row that are believed: more is damage.
const LONGEST: usize = 1000;

/// Who owned the names of the job's results, one after the other; `commits` is the folder of claims and commits, which
/// need not be there.
pub fn chain(work: &Work, commits: &Path) -> Result<Vec<Claim>, Fault> {
    let Some(output) = &work.job.output else { return Ok(Vec::new()) };
    let mut chain = Vec::new();
    let mut next = read(&commits.join(Layout::claim(&output.path)))?;
    while let Some(claim) = next {
        next = read(&commits.join(Layout::successor(&output.path, &claim.uid)))?;
        chain.push(claim);
        if chain.len() > LONGEST {
            return Err(damaged(commits, "its owners have no end"));
        }
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Option<Claim>, Fault> {
    if store::look(path)?.is_none() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(fault::output("read the claim", path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(path, &error.to_string()))
}

fn damaged(path: &Path, why: &str) -> Fault {
    let message = format!("'{}' is no claim of a ShardJob: {why}. Choose another `spec.output.url`", path.display());
    fault::end_job(FailureClass::Store, "OutputClaimed", message)
}

/// What is to be done about the claims that are there.
pub fn next(work: &Work, attempt: &Attempt) -> Result<Next, Fault> {
    let Some(output) = &work.job.output else { return Ok(Next::Ours) };
    let chain = chain(work, &work.commits_directory()?)?;
    Ok(claim::next(&chain, &work.brief.uid, output.reuse, attempt.grant().heir_of))
}

/// Refuses to go on for a job whose names belong to another one now; otherwise says under whose folder commits are.
pub fn hold(work: &Work, places: &Places) -> Result<Layout, Fault> {
    let Some(output) = &work.job.output else { return Ok(work.layout.clone()) };
    let known = match work.commits() {
        Some(layout) => layout,
        None => {
            let chain = chain(work, &places.commits)?;
            let Some(first) = chain.first() else { return Err(damaged(&places.commits, "it is gone")) };
            work.commit_under(&first.uid);
            work.layout_of(&first.uid)
        }
    };
    match read(&places.commits.join(Layout::successor(&output.path, &work.brief.uid)))? {
        Some(heir) => {
            Err(refusal(work, &heir.owner(), ", which has taken it over. Nothing more is written: delete this one"))
        }
        None => Ok(known),
    }
}

/// What another job is told.
pub fn refusal(work: &Work, owner: &Owner, rest: &str) -> Fault {
    fault::end_job(FailureClass::Store, "OutputClaimed", claim::belongs(&work.job, owner, rest))
}

/// Claims the names, or takes them over from the last owner. Whoever was faster is found by looking again.
/// `aside` is a private name on the same file system.
pub fn take(work: &Work, aside: &Path, places: &Places) -> Result<(), Fault> {
    let Some(output) = &work.job.output else { return Ok(()) };
    let chain = chain(work, &places.commits)?;
    let name = match chain.last() {
        Some(last) if last.uid == work.brief.uid => {
            return store::sync_found(&places.commits.join(named(work, &chain)));
        }
        Some(last) => Layout::successor(&output.path, &last.uid),
        None => Layout::claim(&output.path),
    };
    let path = places.commits.join(name);
    let brief = &work.brief;
    let ours = Claim {
        uid: brief.uid.clone(),
        namespace: brief.namespace.clone(),
        name: brief.name.clone(),
        path: output.path.clone(),
        program: work.job.task.program(),
        plan: work.records_url(&work.layout.plan()),
    };
    let bytes = serde_json::to_vec(&ours).map_err(|error| fault::output("write", &path)(error.into()))?;
    if store::put_new(aside, &path, &bytes)? == store::Created::Before {
        store::sync_found(&path)?;
    }
    Ok(())
}

fn named(work: &Work, chain: &[Claim]) -> String {
    let path = work.job.output.as_ref().map_or("", |output| &output.path);
    match chain {
        [.., before, _] => Layout::successor(path, &before.uid),
        _ => Layout::claim(path),
    }
}

/// Whether there are results to go on from: an earlier owner had a plan. Refuses to go on from results of other input or
/// another program (P31).
pub fn has_alike(work: &Work, plan: &PlanFile) -> Result<bool, Fault> {
    let others = chain(work, &work.commits_directory()?)?.into_iter().filter(|claim| claim.uid != work.brief.uid);
    let mut found = false;
    for claim in others {
        let path = directory(&claim.plan);
        // Who has no plan has published nothing.
        if store::look(path)?.is_none() {
            continue;
        }
        let path = work.on_volume(FailureClass::Store, path)?;
        let alike = PlanFile::open(&path, None)?.plan().is_like(plan.plan());
        if !alike || claim.program != work.job.task.program() {
            return Err(refusal(work, &claim.owner(), OTHER));
        }
        found = true;
    }
    Ok(found)
}

const OTHER: &str =
    ", which had other input or another task: its results cannot be used again. Nothing was written. Remove them";
