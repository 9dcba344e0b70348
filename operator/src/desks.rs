//! The desks of this process: one for each job that has something left to do, while this process leads.
//!
//! A desk that fails is heard of here, counted, and opened anew after a pause; no other job notices.

use std::{
    any::Any,
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use hyperflow_api::{ShardJob, ShardJobStatus, ids::JobUid};
use hyperflow_core::{
    coordinator::{Coordinator, Limits, Pod, Seen},
    status,
};
use kube::{Client, Resource, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{error, info, warn};

use crate::{
    announce::Announcer,
    clock,
    controller::Guarded,
    desk::{Desk, DeskError, End, MAILBOX},
    finalizer,
    grants::{GrantKey, Grants},
    handle::{Handle, HandleError},
    health::Health,
    metrics::Metrics,
    nodes::Nodes,
    observe,
    report::{self, Ledger},
    telemetry::chain,
};

/// Pauses before a desk that ended early is opened anew: doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A desk that lived so long was sound: its next failure is its first.
const SOUND: Duration = Duration::from_secs(60);

/// Whether a job has a desk.
pub enum Opening {
    /// It has one.
    Open(Handle),
    /// Its spec is not sound: this status says so.
    Refused(Box<ShardJob>, Box<ShardJobStatus>),
    /// Its desk ended early; it is opened anew after this time.
    Later(Duration),
    /// It needs none, or is gone.
    Nothing,
}

/// What all desks work with.
pub struct Office {
    /// Reads and writes jobs.
    pub client: Client,
    /// What the administrator sets.
    pub limits: Limits,
    /// Tells people.
    pub announcer: Announcer,
    /// Asks for reconciliation of a job. Unbounded, but drained at once into a queue without duplicates.
    pub wake: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    /// Whether this process leads.
    pub leading: watch::Receiver<bool>,
    /// The cluster's nodes.
    pub nodes: watch::Receiver<Nodes>,
    /// Hears whether desks are alive.
    pub health: Arc<Health>,
    /// Counts.
    pub metrics: Metrics,
    /// Signs what lets workers read blocks from one another.
    pub grants: GrantKey,
}

/// All desks.
pub struct Desks {
    office: Office,
    entries: Mutex<HashMap<JobUid, Entry>>,
    next: AtomicU64,
    open: watch::Sender<usize>,
}

/// Which desk a task is.
struct Ticket {
    uid: JobUid,
    number: u64,
    job: ObjectRef<Guarded>,
}

/// A desk that ended before its job was over.
#[derive(Clone, Copy, Default)]
struct Early {
    /// See [`Entry::Resting`].
    heard: u64,
}

enum Entry {
    Open {
        /// Tells this desk from an earlier one of the same job.
        number: u64,
        handle: Handle,
        job: ObjectRef<Guarded>,
        since: Instant,
        failures: u32,
        /// Dropped to dismiss the desk.
        _dismiss: watch::Sender<()>,
    },
    Resting {
        job: ObjectRef<Guarded>,
        until: Instant,
        failures: u32,
        /// A term that a worker spoke of and that was higher than the desk's own, or 0: the next one begins above it.
        heard: u64,
    },
}

impl Desks {
    /// No desks.
    #[must_use]
    pub fn new(office: Office) -> Arc<Self> {
        Arc::new(Self { office, entries: Mutex::default(), next: AtomicU64::new(1), open: watch::Sender::new(0) })
    }

    /// The desk of a job, if it is open.
    #[must_use]
    pub fn find(&self, job: &JobUid) -> Option<Handle> {
        match self.lock().get(job) {
            Some(Entry::Open { handle, .. }) => Some(handle.clone()),
            _ => None,
        }
    }

    /// The desk of a job, opened if need be. Never called twice at a time for one job.
    ///
    /// # Errors
    /// When the job cannot be read.
    pub async fn open(self: &Arc<Self>, seen: &Seen, pods: &[Pod]) -> Result<Opening, HandleError> {
        let (failures, heard) = match self.lock().get(&seen.uid) {
            Some(Entry::Open { handle, .. }) => return Ok(Opening::Open(handle.clone())),
            Some(Entry::Resting { until, .. }) if *until > Instant::now() => {
                return Ok(Opening::Later(*until - Instant::now()));
            }
            Some(Entry::Resting { failures, heard, .. }) => (*failures, *heard),
            None => (0, 0),
        };
        if status::has_ended(&seen.spec, &seen.status, seen.generation) && pods.is_empty() {
            return Ok(Opening::Nothing);
        }
        // Past the cache, which may be older than what another leader wrote: a take-over begins with what is there.
        let Some(job) = report::fresh(&self.office.client, &seen.namespace, &seen.name, &seen.uid).await? else {
            return Ok(Opening::Nothing);
        };
        let Some(mut live) = observe::job(&job) else { return Ok(Opening::Nothing) };
        if status::has_ended(&live.spec, &live.status, live.generation) && pods.is_empty() {
            return Ok(Opening::Nothing);
        }
        live.abandoned = live.deleting && seen.abandoned;
        let job = if finalizer::is_missing(&job) { finalizer::add(&self.office.client, &job).await? } else { job };
        let random = clock::random_u64()?;
        match Coordinator::take_over(clock::now(), &live, random, heard, self.office.limits) {
            Ok(coordinator) => Ok(Opening::Open(self.start(live, job, coordinator, failures))),
            Err(refusal) => {
                let status = status::refused(clock::now(), &live, &refusal);
                Ok(Opening::Refused(Box::new(job), Box::new(status)))
            }
        }
    }

    fn start(self: &Arc<Self>, seen: Seen, job: ShardJob, coordinator: Coordinator, failures: u32) -> Handle {
        let Seen { uid, namespace, name, .. } = seen;
        let office = &self.office;
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        let (dismiss, dismissed) = watch::channel(());
        let reference = ObjectRef::<Guarded>::new(&name).within(&namespace);
        let takeover = coordinator.takeover();
        info!(namespace, job = name, uid = %uid, term = takeover.term, "opened a desk");
        let desk = Desk {
            about: job.object_ref(&()),
            ledger: Some(Ledger::new(
                office.client.clone(),
                job,
                takeover,
                office.leading.clone(),
                office.metrics.clone(),
            )),
            coordinator,
            mailbox,
            own_mailbox: mail.downgrade(),
            announcer: office.announcer.clone(),
            reference: reference.clone(),
            wake: office.wake.clone(),
            dismissed,
            leading: office.leading.clone(),
            nodes: office.nodes.clone(),
            client: office.client.clone(),
            promise: office.health.promise(format!("desk of {namespace}/{name}")),
            metrics: office.metrics.clone(),
            grants: Grants::new(office.grants.clone(), uid.clone()),
        };
        let handle = Handle::new(namespace, mail);
        let ticket = self.enter(uid, reference, handle.clone(), dismiss, failures);
        tokio::spawn(Arc::clone(self).supervise(desk.run(), ticket));
        handle
    }

    fn enter(
        &self,
        uid: JobUid,
        job: ObjectRef<Guarded>,
        handle: Handle,
        dismiss: watch::Sender<()>,
        failures: u32,
    ) -> Ticket {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let entry = Entry::Open { number, handle, job: job.clone(), since, failures, _dismiss: dismiss };
        self.lock().insert(uid.clone(), entry);
        self.open.send_modify(|open| *open += 1);
        Ticket { uid, number, job }
    }

    /// Lets a desk work, and hears how it ends.
    async fn supervise(self: Arc<Self>, desk: impl Future<Output = Result<End, DeskError>>, ticket: Ticket) {
        let ended = AssertUnwindSafe(desk).catch_unwind().await;
        let early = self.judge(&ticket.job, ended);
        let job = ticket.job.clone();
        self.office.metrics.forget(job.namespace.as_deref().unwrap_or_default(), &job.name);
        self.leave(ticket, early);
        self.open.send_modify(|open| *open = open.saturating_sub(1));
        // It fails only when the controller has ended, and the process with it.
        let _ending = self.office.wake.send(job);
    }

    /// Takes a desk's entry out, and puts a rest in its place if the desk ended early.
    fn leave(&self, ticket: Ticket, early: Option<Early>) {
        let Ticket { uid, number: ended, job } = ticket;
        let mut entries = self.lock();
        // A dismissed desk has no entry any more, or it is another desk's: nothing is to be reopened then.
        let Some(Entry::Open { number, since, failures, .. }) = entries.get(&uid) else { return };
        if *number != ended {
            return;
        }
        let failures = if since.elapsed() >= SOUND { 0 } else { *failures };
        entries.remove(&uid);
        if let Some(Early { heard }) = early {
            let until = Instant::now() + LAST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(failures));
            entries.insert(uid, Entry::Resting { job, until, failures: failures.saturating_add(1), heard });
        }
    }

    /// Whether a desk ended before its job was over.
    fn judge(
        &self,
        job: &ObjectRef<Guarded>,
        ended: Result<Result<End, DeskError>, Box<dyn Any + Send>>,
    ) -> Option<Early> {
        let namespace = job.namespace.as_deref().unwrap_or_default();
        match ended {
            Ok(Ok(end)) => {
                info!(namespace, job = job.name, end = ?end, "a desk closed");
                match end {
                    End::Over | End::Gone | End::Dismissed => None,
                    End::Superseded => Some(Early::default()),
                    End::Outranked(heard) => Some(Early { heard }),
                }
            }
            Ok(Err(failure)) => {
                warn!(namespace, job = job.name, error = chain(&failure), "a desk failed");
                Some(Early::default())
            }
            Err(panic) => {
                self.office.metrics.desk_panics.inc();
                error!(namespace, job = job.name, panic = panic_text(&*panic), "a desk panicked");
                Some(Early::default())
            }
        }
    }

    /// Closes a job's desk: the object is gone.
    pub fn dismiss(&self, uid: &JobUid) {
        self.lock().remove(uid);
    }

    /// Closes the desk of whichever job had this name: there is no such object any more.
    pub fn dismiss_named(&self, namespace: Option<&str>, name: &str) {
        self.lock().retain(|_, entry| {
            let (Entry::Open { job, .. } | Entry::Resting { job, .. }) = entry;
            job.name != name || job.namespace.as_deref() != namespace
        });
    }

    /// Waits until no desk is open.
    pub async fn all_closed(&self) {
        // The sender is ours, so that it cannot be gone.
        let _none = self.open.subscribe().wait_for(|open| *open == 0).await.is_ok();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobUid, Entry>> {
        // Nothing panics halfway through a change of the map, so that a poisoned one is still sound.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a panic said.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
