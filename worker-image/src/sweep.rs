//! After all shards: staging and checkpoints go; the plan, the commits and the records stay (P21), and a report is made of
//! them.

use std::{fs, io::ErrorKind, path::Path};

use hyperflow_api::message::StoredReport;
use hyperflow_core::layout::Layout;

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    report, store,
    work::Work,
};

const SWEPT: &str = "swept";

/// Removes what is temporary, then makes the report, if one is wanted. Doing it twice is fine.
pub fn run(work: &Work, attempt: &Attempt) -> Result<Option<StoredReport>, Fault> {
    for folder in [work.commits_directory()?, work.records_directory()?] {
        if store::look(&folder)?.is_none() {
            return Ok(None);
        }
    }
    let places = work.places()?;
    let own = places.commits.join(work.layout.root());
    // Those of the runs before it too: one that was cut short by the next was never swept.
    let runs = (1..=work.brief.run).map(|run| work.layout.clone().in_run(run, false));
    for name in runs.flat_map(|layout| layout.temporary()) {
        // Renamed first: a late attempt then finds no folder to write in, and stops by itself.
        let aside = own.join(Layout::private(&format!("{SWEPT}-{name}"), attempt.grant().epoch, &work.worker));
        match fs::rename(own.join(&name), &aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fault::output("rename", &aside)(error)),
            _ => {}
        }
    }
    remove_renamed(&own, attempt)?;
    if attempt.grant().probe { report::make(work, attempt, &places) } else { Ok(None) }
}

/// Removes what this sweep has renamed, and what an earlier one has before it died.
fn remove_renamed(own: &Path, attempt: &Attempt) -> Result<(), Fault> {
    let entries = match fs::read_dir(own) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault::output("list", own)(error)),
    };
    for entry in entries {
        attempt.go_on()?;
        let entry = entry.map_err(fault::output("list", own))?;
        if entry.file_name().to_string_lossy().starts_with(SWEPT) {
            store::remove_tree(&entry.path())?;
        }
    }
    store::sync_folder(own)
}
