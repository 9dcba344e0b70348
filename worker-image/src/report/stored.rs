//! The report in the store: made once, create-only, with its lists beside it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use hyperflow_api::message::StoredReport;
use hyperflow_core::layout::Layout;

use super::{Places as Files, Recorded, ReportWriter, sums_name};
use crate::{
    attempt::Attempt,
    claim,
    fault::{self, Fault},
    plan_file::PlanFile,
    store::{self, Created},
    work::{Places, Work, directory},
};

/// Makes the report of a job that has a plan, or finds it made.
pub fn make(work: &Work, attempt: &Attempt, places: &Places) -> Result<Option<StoredReport>, Fault> {
    let plan = places.records.join(work.layout.plan());
    if store::look(&plan)?.is_none() {
        return Ok(None);
    }
    let path = places.records.join(work.layout.report());
    // A run after the first has a folder of its own.
    store::make_folders(store::parent(&path))?;
    let written = match store::look(&path)? {
        None => write(work, attempt, places, &PlanFile::open(&plan, None)?, &path)?,
        Some(_) => None,
    };
    let digest = match written {
        Some(digest) => digest,
        None => found(&path)?,
    };
    Ok(Some(StoredReport { url: work.records_url(&work.layout.report()), digest }))
}

/// Another sweep has made the report: its digest, once it is durable (P6).
fn found(path: &Path) -> Result<String, Fault> {
    store::sync_found(path)?;
    let report = File::open(path).map_err(fault::output("open", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(report).map_err(fault::output("read", path))?;
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// The digest of the report, if it is ours that is there now.
fn write(
    work: &Work,
    attempt: &Attempt,
    places: &Places,
    plan: &PlanFile,
    path: &Path,
) -> Result<Option<String>, Fault> {
    let folder = store::parent(path);
    let private = |what: &str| folder.join(Layout::private(what, attempt.grant().epoch, &work.worker));
    let files = Files { report: private("report"), failed: private("failed"), sums: private("sums") };
    // The first owner's commits are those of all who took the names over from it; each recorded what it did.
    let chain = claim::chain(work, &places.commits)?;
    let commits = chain.first().map_or_else(|| work.layout.clone(), |first| work.layout_of(&first.uid));
    let others = chain.iter().filter(|owner| owner.uid != work.brief.uid).map(|owner| records_beside(&owner.plan));
    let own = places.records.join(work.layout.records_folder());
    let recorded = Recorded::read(&own, &others.collect::<Vec<_>>(), &std::env::temp_dir())?;
    let named = work.job.names_runs();
    let committed = |index, run| places.commits.join(commits.clone().in_run(run, named).commit(index));
    let mut writer = ReportWriter::new(&work.job, recorded, files.clone(), &committed)?;
    plan.each(|index, shard| {
        attempt.go_on()?;
        writer.shard(index, shard)
    })?;
    let finished = writer.finish()?;
    if finished.torn > 0 || finished.unlisted > 0 {
        tracing::info!(torn = finished.torn, unlisted = finished.unlisted, "lines that are not in the report");
    }
    // The report is last: where it is, everything beside it is.
    let sums = sums_name(&work.job.task).map(|name| (&files.sums, folder.join(name)));
    let failed = finished.lists_failed.then(|| (&files.failed, folder.join("failed.txt")));
    let mut created = Created::Before;
    for (private, name) in sums.into_iter().chain(failed).chain([(&files.report, path.to_path_buf())]) {
        created = store::link_new(private, &name)?;
        store::remove(private)?;
    }
    store::sync_folder(folder)?;
    Ok((created == Created::Us).then_some(finished.digest))
}

/// The folder of records beside a plan.
fn records_beside(plan: &str) -> PathBuf {
    store::parent(directory(plan)).join("records")
}
