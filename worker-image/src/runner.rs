//! Starts and stops attempts, each in a slot's thread, and answers every start with one end.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc as blocking},
    thread,
};

use hyperflow_api::{
    ids::{ShardIndex, WorkerId},
    message::{Failure, FailureClass, PlanRef, Published, Target, Welcome},
    replica::BlockOrder,
};
use hyperflow_core::{
    job::{Brief, Task},
    worker::{Assignment, Event, Outcome, RunId, Stop},
};
use tokio::sync::mpsc;

use crate::{
    attempt::{Attempt, StopFlag},
    blocks::Keeper,
    checkpoints, fault, finally, logs,
    metrics::{Ending, Metrics},
    planner,
    records::Records,
    shard, sweep,
    threads::Threads,
    work::Work,
};

/// A shard whose temporary files can go.
type Leftover = (Arc<Work>, ShardIndex);

/// The attempts of this process.
#[derive(Debug)]
pub struct Runner {
    worker: WorkerId,
    node: String,
    metrics: Arc<Metrics>,
    reports: mpsc::Sender<Event>,
    records: Arc<Records>,
    work: Option<Result<Arc<Work>, Failure>>,
    plan: Option<PlanRef>,
    running: BTreeMap<RunId, Arc<StopFlag>>,
    threads: Threads,
    cleaner: Option<blocking::Sender<Leftover>>,
    keeper: Option<Arc<Keeper>>,
}

impl Runner {
    /// Runs nothing yet, and never more than `slots` attempts at a time. What they have to say goes to `reports`.
    pub fn new(
        worker: WorkerId,
        node: String,
        slots: u32,
        metrics: Arc<Metrics>,
        reports: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            worker,
            node,
            metrics,
            reports,
            records: Arc::default(),
            work: None,
            plan: None,
            running: BTreeMap::new(),
            threads: Threads::new(slots as usize),
            cleaner: None,
            keeper: None,
        }
    }

    /// The same, with a store for blocks.
    pub fn with_keeper(self, keeper: Option<Arc<Keeper>>) -> Self {
        Self { keeper, ..self }
    }

    /// Takes the job from a welcome. A job that differs only in what applies to new pods (P27) changes nothing here.
    pub fn configure(&mut self, welcome: &Welcome) {
        let work = self.read(&welcome.job);
        let frozen = |work: &Option<Result<Arc<Work>, Failure>>| match work {
            Some(Ok(work)) => Some((work.job.frozen.clone(), work.brief.run)),
            _ => None,
        };
        let work = Some(work);
        if frozen(&self.work).is_some() && frozen(&self.work) == frozen(&work) {
            return;
        }
        if let Some(Ok(old)) = std::mem::replace(&mut self.work, work) {
            // Programs that wait for shards of it wait in vain; whoever still runs one keeps it.
            let thread = thread::Builder::new().name("slots".into());
            if let Err(error) = thread.spawn(move || old.slots.end()) {
                tracing::warn!(%error, "cannot start a thread: programs without shards are killed later");
            }
        }
        if let Some(plan) = self.plan.clone() {
            self.use_plan(plan);
        }
    }

    fn read(&self, job: &str) -> Result<Arc<Work>, Failure> {
        let refuse = |message: String| {
            tracing::error!(message, "the job is refused");
            // The operator has checked the same: this worker is of another version, and one made now may not be.
            let class = FailureClass::Application;
            Failure {
                class,
                reason: "InvalidSpec".into(),
                message,
                ends_job: false,
                checkpoint_unusable: false,
                exit_code: None,
            }
        };
        let brief: Brief = serde_json::from_str(job).map_err(|error| {
            refuse(format!("the worker cannot read the job: {error}. Use a worker image of the operator's version"))
        })?;
        let (worker, node) = (self.worker.clone(), self.node.clone());
        let work = Work::new(brief, worker, node, self.metrics.clone(), self.records.clone());
        work.map(|work| Arc::new(work.with_keeper(self.keeper.clone()))).map_err(|refusal| refuse(refusal.to_string()))
    }

    /// Uses this plan from now on.
    pub fn use_plan(&mut self, plan: PlanRef) {
        if let Some(Ok(work)) = &self.work {
            work.use_plan(plan.clone());
            if let Some(keeper) = work.keeper() {
                keeper.survey(work, &plan.digest);
            }
        }
        self.plan = Some(plan);
    }

    /// Does something with the block store.
    pub fn order(&self, order: BlockOrder) {
        let work = self.work.as_ref().and_then(|work| work.as_ref().ok());
        match work.and_then(|work| Some((work, work.keeper()?))) {
            Some((work, keeper)) => keeper.obey(work, order),
            None => tracing::warn!(group = order.group(), "an order about blocks is for a worker that keeps none"),
        }
    }

    /// Begins an attempt when a slot is free. What needs no thread is over at once, and its end is returned.
    pub fn start(&mut self, assignment: Assignment) -> Option<Event> {
        let run = assignment.run;
        let work = match &self.work {
            Some(Ok(work)) => work.clone(),
            Some(Err(failure)) => return Some(self.over(run, Outcome::Failed(failure.clone()))),
            None => return Some(self.over(run, lost("NotConfigured", "a lease came before the job was known".into()))),
        };
        if work.job.task == Task::Noop && matches!(assignment.grant.target, Target::Shard(_)) {
            // Nothing is done and nothing stored (P10): a thread would be the only cost.
            let nothing = Published { bytes: 0, crc32c: 0, found: false };
            return Some(self.over(run, Outcome::Published(nothing)));
        }
        let flag = Arc::new(StopFlag::default());
        let (stop, reports) = (flag.clone(), self.reports.clone());
        let started = self.threads.run(move || {
            if !stop.take() {
                return;
            }
            let attempt = Attempt::new(assignment, stop, reports);
            work.metrics.running.inc();
            let outcome = live(&work, &attempt);
            work.metrics.running.dec();
            attempt.ended(outcome);
        });
        if let Err(error) = started {
            return Some(self.over(run, lost("NoThread", format!("cannot start a thread: {error}"))));
        }
        self.running.insert(run, flag);
        None
    }

    /// Orders an attempt to stop; it answers with its end. That of one that still waits in line is returned. One that is over
    /// is not disturbed.
    pub fn stop(&self, run: RunId, how: Stop) -> Option<Event> {
        let flag = self.running.get(&run)?;
        flag.order(how);
        flag.take().then(|| self.over(run, Outcome::Stopped))
    }

    /// The process ends: programs that wait for shards are told, and waited for.
    pub fn end(&self) {
        if let Some(Ok(work)) = &self.work {
            work.slots.end();
        }
    }

    /// Whether a stream to an operator is open, for the metrics.
    pub fn connected(&self, open: bool) {
        self.metrics.connected.set(i64::from(open));
    }

    /// An attempt's end was heard.
    pub fn ended(&mut self, run: RunId) {
        self.running.remove(&run);
    }

    /// Removes a committed shard's segments and checkpoints, in the background.
    pub fn clean(&mut self, index: ShardIndex) {
        let Some(Ok(work)) = &self.work else { return };
        if !work.job.publishes() {
            return;
        }
        let leftover = (work.clone(), index);
        let cleaner = self.cleaner.take().or_else(start_cleaner);
        // Whatever is not removed now, the sweep at the end of the job removes.
        self.cleaner = cleaner.filter(|cleaner| match cleaner.send(leftover) {
            Ok(()) => true,
            Err(_) => {
                tracing::warn!("the thread that removes staging is gone; another one is started");
                false
            }
        });
    }

    fn over(&self, run: RunId, outcome: Outcome) -> Event {
        count(&self.metrics, &outcome);
        Event::Ended { run, outcome }
    }
}

fn lost(reason: &str, message: String) -> Outcome {
    fault::try_again(FailureClass::WorkerLost, reason, message).outcome()
}

fn count(metrics: &Metrics, outcome: &Outcome) {
    let outcome = match outcome {
        Outcome::Published(Published { found: true, .. }) => "found",
        Outcome::Published(_) => "published",
        Outcome::Planned(_) => "planned",
        Outcome::Claimed(_) => "claimed",
        Outcome::Finalized => "finalized",
        Outcome::Swept(_) => "swept",
        Outcome::Stopped => "stopped",
        Outcome::Failed(failure) => failure.class.name(),
    };
    metrics.attempts.get_or_create(&Ending { outcome }).inc();
}

/// An attempt: it comes to exactly one end, also when it panics.
fn live(work: &Work, attempt: &Attempt) -> Outcome {
    let grant = attempt.grant();
    let (job, worker) = (&work.brief.uid, &work.worker);
    let span = tracing::info_span!("attempt", %job, %worker, shard = ?grant.target, epoch = %grant.epoch, attempt = grant.attempt);
    let _inside = span.enter();
    let outcome = catch_unwind(AssertUnwindSafe(|| carry_out(work, attempt))).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        fault::try_again(FailureClass::Application, "Panicked", format!("the attempt panicked: {what}")).outcome()
    });
    if let Outcome::Failed(failure) = &outcome {
        let Failure { reason, message, .. } = failure;
        tracing::warn!(reason, message, "the attempt failed");
        if let Target::Shard(index) = grant.target {
            shard::keep_failure(work, attempt, index, failure);
        }
    }
    count(&work.metrics, &outcome);
    outcome
}

fn carry_out(work: &Work, attempt: &Attempt) -> Outcome {
    let outcome = match attempt.grant().target {
        Target::Plan => planner::run(work, attempt),
        Target::Shard(index) => shard::run(work, attempt, index).map(Outcome::Published),
        Target::Finally => finally::run(work, attempt),
        Target::Sweep => sweep::run(work, attempt).map(Outcome::Swept),
    };
    outcome.unwrap_or_else(fault::Fault::outcome)
}

fn start_cleaner() -> Option<blocking::Sender<Leftover>> {
    let (sender, leftovers) = blocking::channel::<Leftover>();
    let thread = thread::Builder::new().name("clean".into()).spawn(move || {
        for (work, index) in leftovers {
            if let Err(error) = checkpoints::remove(&work, index) {
                tracing::warn!(error = logs::causes(&error), shard = index, "staging stays until the sweep");
            }
        }
    });
    match thread {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(%error, "cannot start a thread: staging stays until the sweep");
            None
        }
    }
}
