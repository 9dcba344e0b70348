//! One shard, from its input to its published result: the core says which step comes next, this does it.

use hyperflow_api::{
    exec::OutputMode,
    ids::ShardIndex,
    message::{Failure, FailureClass, Published},
};
use hyperflow_core::{
    checkpoint::Origin,
    job::Task,
    plan::Shard,
    publish::{Answer, Content, PublishError, Step},
    source::Cut,
};

use crate::{
    attempt::Attempt,
    checksum::Sums,
    claim, copy, exec,
    fault::{self, Fault},
    logs, names,
    progress::{Figures, Progress},
    publish::{self, Publisher, Staged},
    records::{self, Failed, Record},
    stream::Stream,
    work::Work,
};

/// Runs the task on a shard, or finds it done.
pub fn run(work: &Work, attempt: &Attempt, index: ShardIndex) -> Result<Published, Fault> {
    let program = match &work.job.task {
        Task::Exec(program) if !work.job.publishes() => return exec::run(work, attempt, program, index),
        Task::Exec(program) => Some(&**program),
        _ => None,
    };
    let places = work.places()?;
    let commits = claim::hold(work, &places)?;
    let plan = work.plan(&places)?;
    let shard = plan.shard(index)?.ok_or_else(|| {
        let message = format!("shard {index} was leased, and the plan has {} shards", plan.plan().shards());
        fault::try_again(FailureClass::WorkerLost, "PlanUnknown", message)
    })?;
    work.open_run(&places)?;
    let names = names::of(&work.job, work.brief.run, index, &shard.id(), &shard);
    let cut = plan.plan().cut();
    let length = match (&work.job.task, cut) {
        (Task::Copy { .. }, Cut::Files { .. } | Cut::Bytes { .. }) => Some(shard.bytes()),
        _ => None,
    };
    let tree = program.is_some_and(|program| program.output == OutputMode::Directory);
    let publisher = Publisher { work, attempt, places: &places, commits: &commits, names: &names, index, length, tree };
    let digest = work.job.task.program();
    let origin = Origin { job: &work.brief.uid, plan: plan.plan().digest(), program: &digest, index };
    let mut run = Run {
        publisher,
        origin,
        shard: &shard,
        cut,
        made: None,
        theirs: None,
        sums: None,
        figures: Figures::default(),
    };
    let done = run.publish();
    if matches!(done, Err(Fault::Stopped)) && attempt.wants_checkpoint() {
        run.leave_checkpoint();
    }
    done
}

/// Keeps why an attempt failed, for the report. Nothing rests on it: where it cannot be kept, the log says so.
pub fn keep_failure(work: &Work, attempt: &Attempt, index: ShardIndex, failure: &Failure) {
    if !work.job.publishes() {
        return;
    }
    let kept = work.places().and_then(|places| {
        let path = places.records.join(work.layout.records(&work.worker));
        work.records.append(&path, &Failed::new(work, attempt, index, failure))
    });
    if let Err(error) = kept {
        tracing::warn!(error = logs::causes(&error), "the report will not say why this attempt failed");
    }
}

struct Run<'a> {
    publisher: Publisher<'a>,
    origin: Origin<'a>,
    shard: &'a Shard,
    cut: &'a Cut,
    made: Option<Progress<'a>>,
    /// The same of a program.
    theirs: Option<exec::Made>,
    sums: Option<Sums>,
    figures: Figures,
}

impl Run<'_> {
    fn publish(&mut self) -> Result<Published, Fault> {
        let mut step = Step::Look;
        let mut gone = None;
        loop {
            if let Step::Report(published) = step {
                return Ok(published);
            }
            let answer = match self.carry_out(step) {
                Err(fault) if fault.is_full() && step == Step::Produce => {
                    self.give_back();
                    return Err(fault);
                }
                Err(fault) if fault.vanished() && matches!(step, Step::Produce | Step::Sync(_) | Step::Commit(_)) => {
                    gone = Some(fault);
                    Answer::Gone
                }
                answer => answer?,
            };
            step = step.next(answer).map_err(|error| match gone.take() {
                Some(fault) if error == PublishError::StagingGone => fault,
                _ => publish::out_of_order(error.to_string()),
            })?;
        }
    }

    fn carry_out(&mut self, step: Step) -> Result<Answer, Fault> {
        match step {
            Step::Produce => self.produce().map(Answer::Staged),
            Step::Record(published) => {
                let work = self.publisher.work;
                let path = self.publisher.places.records.join(work.layout.records(&work.worker));
                work.records.append(&path, &self.record(published)).map(|()| Answer::Done)
            }
            step => self.publisher.carry_out(step, &self.staged()),
        }
    }

    fn staged(&self) -> Staged<'_> {
        match (&self.made, &self.theirs) {
            (_, Some(theirs)) => theirs.staged(),
            (Some(made), None) => Staged::Files(made.staged()),
            (None, None) => Staged::default(),
        }
    }

    fn produce(&mut self) -> Result<Content, Fault> {
        let Publisher { work, attempt, index, .. } = self.publisher;
        if let Task::Exec(program) = &work.job.task {
            let task = exec::Task { work, attempt, program, index, shard: self.shard, cut: self.cut };
            let made = self.theirs.insert(task.produce(&self.publisher, self.origin)?);
            // All of its input is read again, wherever it goes on from.
            self.figures.read = made.read;
            return Ok(made.content());
        }
        let mut input = Stream::open(self.publisher.work, self.publisher.index, self.shard, self.cut)?;
        let made = Progress::begin(&self.publisher, self.origin, input.length(), &mut self.figures)?;
        let made = self.made.insert(made);
        match &self.publisher.work.job.task {
            Task::Copy { .. } => copy::run(made, &mut input, &mut self.figures)?,
            Task::Checksum(sum) => {
                let sums = self.sums.insert(Sums::begin(*sum, made)?);
                sums.run(made, &mut input, &mut self.figures)?;
            }
            Task::Exec(_) | Task::Noop => return Err(publish::out_of_order("a no-op has no output".into())),
        }
        made.assemble()?;
        let content = made.staged().first().map(|staged| staged.segment());
        let segment = content.ok_or_else(|| publish::out_of_order("nothing was staged".into()))?;
        Ok(Content { bytes: segment.length, crc32c: segment.crc32c })
    }

    /// There is no room, and nothing of this attempt is published: what it wrote since its checkpoint would be in the way
    /// of whoever tries next.
    fn give_back(&self) {
        if let Some(Err(error)) = self.made.as_ref().map(Progress::give_back) {
            tracing::warn!(error = logs::causes(&error), "what was written in vain still takes room");
        }
    }

    /// The worker leaves: what was done so far is kept for the next attempt.
    fn leave_checkpoint(&mut self) {
        let state = self.sums.as_ref().map(Sums::state);
        if let Some(Err(error)) = self.made.as_mut().map(|made| made.checkpoint(state)) {
            tracing::warn!(error = logs::causes(&error), "left without a last checkpoint");
        }
    }

    fn record(&self, published: Published) -> Record {
        let Publisher { work, attempt, index, .. } = self.publisher;
        let grant = attempt.grant();
        Record {
            index,
            run: work.brief.run,
            epoch: grant.epoch.to_string(),
            attempt: grant.attempt,
            worker: work.worker.to_string(),
            node: work.node.clone(),
            bytes: published.bytes,
            crc32c: format!("{:08x}", published.crc32c),
            resumed_from: self.figures.resumed_from,
            bytes_read_again: self.figures.read_again,
            bytes_read: self.figures.read,
            millis: records::millis(attempt.age()),
            found: published.found,
            result: self.theirs.as_ref().and_then(|made| made.text.clone()),
        }
    }
}
