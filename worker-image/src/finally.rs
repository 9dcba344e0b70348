//! The last lease of a job with `finally`: the report is made, the command runs over it, and its result becomes visible
//! exactly once (P5, P6). Whoever finds the result committed reports it, and runs nothing.

use std::path::PathBuf;

use hyperflow_api::{exec::FinallyOutput, message::FailureClass};
use hyperflow_core::{job::Task, layout::Layout, worker::Outcome};

use crate::{
    attempt::Attempt,
    claim,
    exec::last::Last,
    fault::{self, Fault},
    publish, report,
    store::{self, Created},
    work::{Places, Work},
};

/// Runs the command, or finds that it has run.
pub fn run(work: &Work, attempt: &Attempt) -> Result<Outcome, Fault> {
    let (Some(finally), Task::Exec(program)) = (&work.job.finally, &work.job.task) else {
        let message = "the last command was leased, and the job has none".into();
        return Err(fault::try_again(FailureClass::WorkerLost, "NotConfigured", message));
    };
    let places = work.places()?;
    // Nothing more is written for a job whose names belong to another one now.
    claim::hold(work, &places)?;
    let committed = Committed::new(work, &places, finally.name(work.brief.run));
    if committed.is_there()? {
        return committed.found();
    }
    if report::make(work, attempt, &places)?.is_none() {
        let message = "the last command was leased, and there is no plan to report on".into();
        return Err(fault::try_again(FailureClass::WorkerLost, "PlanUnknown", message));
    }
    attempt.go_on()?;
    let report = places.records.join(work.layout.report());
    let last = Last::new(work, attempt, program, finally, &report)?;
    match committed.make(attempt, &last) {
        // A sweeper deletes staging when the job has ended, so another attempt was faster.
        Err(fault) if fault.vanished() && committed.is_there()? => committed.found(),
        made => made,
    }
}

/// Where the result of the command is, or will be.
struct Committed<'a> {
    work: &'a Work,
    places: &'a Places,
    /// What makes it visible: create-only, under a name that depends on the job and its run alone.
    path: PathBuf,
    /// Its final name, if it has a result.
    name: Option<String>,
}

impl<'a> Committed<'a> {
    fn new(work: &'a Work, places: &'a Places, name: Option<String>) -> Self {
        let path = places.commits.join(work.layout.finally());
        Self { work, places, path, name }
    }

    fn is_there(&self) -> Result<bool, Fault> {
        Ok(self.name.is_some() && store::look(&self.path)?.is_some())
    }

    /// Another attempt was first: its result is the result, once it is durable and named.
    fn found(&self) -> Result<Outcome, Fault> {
        store::sync_found(&self.path)?;
        self.give_name()
    }

    fn make(&self, attempt: &Attempt, last: &Last<'_>) -> Result<Outcome, Fault> {
        let stage = Layout::private("finally", attempt.grant().epoch, &self.work.worker);
        let stage = self.places.commits.join(self.work.layout.stage()).join(stage);
        let created = match last.finally.output {
            FinallyOutput::None | FinallyOutput::Unknown => {
                last.run(None)?;
                return Ok(Outcome::Finalized);
            }
            FinallyOutput::Stdout => {
                let created = self.stream(attempt, last, &stage);
                store::remove(&stage)?;
                created?
            }
            FinallyOutput::File => {
                let Some(made) = last.run(None)? else { return Err(publish::out_of_order("no file was made".into())) };
                attempt.go_on()?;
                store::put_copy(&stage, &self.path, &made)?
            }
        };
        match created {
            Created::Us => self.give_name(),
            Created::Before => self.found(),
        }
    }

    /// What it writes goes where it is committed from: it may be as large as all results together.
    fn stream(&self, attempt: &Attempt, last: &Last<'_>, stage: &std::path::Path) -> Result<Created, Fault> {
        let file = store::create_new(stage)?;
        last.run(Some(&file))?;
        file.sync_all().map_err(fault::output("sync", stage))?;
        attempt.go_on()?;
        let created = store::link_new(stage, &self.path)?;
        store::sync_folder(store::parent(&self.path))?;
        Ok(created)
    }

    fn give_name(&self) -> Result<Outcome, Fault> {
        let named = self.name.iter().map(|name| (self.path.as_path(), name.as_str()));
        publish::give_names(self.work, self.places, named)?;
        Ok(Outcome::Finalized)
    }
}
