//! Watches jobs and their pods, and gives each job its turns. An object that cannot be read, a turn that panics and a turn
//! that hangs stop no other job.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    error::Error,
    hash::{Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, stream};
use hyperflow_api::{JOB_UID_LABEL, ShardJob, ids::JobUid};
use hyperflow_core::coordinator::Announcement;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt,
        controller::{self, Action, Config},
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use crate::{
    announce::Announcer,
    client::CallError,
    desks::{Desks, panic_text},
    finalizer,
    health::Health,
    metrics::{Metrics, ResultLabels},
    observe,
    reconcile::{Context, ReconcileError, reconcile},
    telemetry::chain,
    watching::{self, Pauses},
};

/// A job as it comes from the API server: an unreadable one stays an object with a name.
pub type Guarded = DeserializeGuard<ShardJob>;

/// Turns at a time.
const CONCURRENCY: u16 = 16;
/// Longest turn. Within it all calls have deadlines of their own.
const TURN: Duration = Duration::from_secs(60);
/// Pauses after failed turns of a job: doubled up to the last. After turns that had no answer from the API server the last
/// is short: it is the same for all jobs, and passes for all of them at one moment.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(60);
const UNANSWERED_PAUSE: Duration = Duration::from_secs(2);

/// What the controller works with.
pub struct Turns {
    /// What a turn works with.
    pub context: Context,
    /// Tells people of unreadable objects.
    pub announcer: Announcer,
    /// Counts.
    pub metrics: Metrics,
    failures: Mutex<HashMap<ObjectRef<Guarded>, u32>>,
}

impl Turns {
    /// No turn has been taken yet.
    #[must_use]
    pub fn new(context: Context, announcer: Announcer, metrics: Metrics) -> Self {
        Self { context, announcer, metrics, failures: Mutex::default() }
    }

    /// A turn, with everything that must not happen kept inside.
    async fn take(self: Arc<Self>, job: Arc<Guarded>) -> Result<Action, ReconcileError> {
        let reference = ObjectRef::from_obj(&*job);
        let _promise = self.context.health.promise(format!("reconciling {reference}"));
        let started = Instant::now();
        let result = match &job.0 {
            Ok(job) => self.guarded(job).await,
            Err(invalid) => self.unreadable(&job, &invalid.error).await,
        };
        let label = result.as_ref().map_or_else(ReconcileError::name, |_| "ok");
        self.metrics.reconciled.get_or_create(&ResultLabels { result: label }).inc();
        self.metrics.reconcile_seconds.0.observe(started.elapsed().as_secs_f64());
        if result.is_ok() {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference);
        }
        result
    }

    async fn guarded(&self, job: &ShardJob) -> Result<Action, ReconcileError> {
        let turn = AssertUnwindSafe(timeout(TURN, Box::pin(reconcile(job, &self.context)))).catch_unwind();
        match turn.await {
            Ok(Ok(result)) => result,
            Ok(Err(_elapsed)) => Err(ReconcileError::Deadline(TURN.as_secs())),
            Err(panic) => Err(ReconcileError::Panic(panic_text(&*panic).into())),
        }
    }

    async fn unreadable(&self, job: &Guarded, error: &str) -> Result<Action, ReconcileError> {
        let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
        warn!(namespace, job = name, error, "a ShardJob cannot be read");
        if *self.context.leading.borrow() {
            let message = format!("this version of the operator cannot read the object: {error}");
            let announcement = Announcement { warning: true, reason: "Unreadable", message };
            self.announcer.announce(job.object_ref(&()), announcement);
            if job.meta().deletion_timestamp.is_some() {
                // Who cannot read it cannot sweep for it.
                let uid = JobUid(job.uid().unwrap_or_default());
                let removed = finalizer::remove(&self.context.client, &namespace, &name, &uid).await;
                removed.map_err(ReconcileError::Release)?;
            }
        }
        Ok(Action::await_change())
    }

    /// When a job gets its next turn after a failed one.
    fn pause(&self, job: &Guarded, error: &ReconcileError) -> Action {
        let last = if is_unanswered(error) { UNANSWERED_PAUSE } else { LAST_PAUSE };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(ObjectRef::from_obj(job)).or_default();
        *count = count.saturating_add(1);
        Action::requeue(last.min(FIRST_PAUSE * 2_u32.saturating_pow(*count - 1)))
    }

    fn forget(&self, namespace: Option<&str>, name: &str) {
        self.context.desks.dismiss_named(namespace, name);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|job, _| job.name != name || job.namespace.as_deref() != namespace);
    }
}

/// Whether a turn failed for want of an answer from the API server.
fn is_unanswered(error: &ReconcileError) -> bool {
    let causes = std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
    causes.filter_map(|cause| cause.downcast_ref()).any(|cause: &CallError| !cause.is_answered())
}

/// Caches that are filled by [`run`].
pub struct Caches {
    jobs: Store<Guarded>,
    jobs_writer: Writer<Guarded>,
    /// All worker pods.
    pub pods: Store<Pod>,
    pods_writer: Writer<Pod>,
}

impl Default for Caches {
    fn default() -> Self {
        let (jobs, jobs_writer) = reflector::store();
        let (pods, pods_writer) = reflector::store();
        Self { jobs, jobs_writer, pods, pods_writer }
    }
}

/// Watches and gives turns, for ever.
pub async fn run(
    client: Client,
    watched: Option<String>,
    caches: Caches,
    turns: Turns,
    wakes: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
) {
    let Caches { jobs, jobs_writer, pods, pods_writer } = caches;
    let turns = Arc::new(turns);
    let (health, leading) = (Arc::clone(&turns.context.health), turns.context.leading.clone());
    let job_events = watch_jobs(scoped(&client, watched.as_deref()), jobs_writer, Arc::clone(&turns.context.desks));
    let pod_events = watch_pods(scoped(&client, watched.as_deref()), pods_writer);
    let (job_events, pod_events) = (watching::without_failures(job_events), watching::without_failures(pod_events));
    let results = Controller::for_stream(job_events, jobs.clone())
        .owns_stream(pod_events)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(changes(leading))
        .reconcile_on(stream::unfold(wakes, async |mut wakes| wakes.recv().await.map(|job| (job, wakes))))
        .run(|job, turns: Arc<Turns>| turns.take(job), |job, error, turns| turns.pause(&job, error), Arc::clone(&turns))
        .for_each(|result| {
            match result {
                Ok((job, action)) => debug!(%job, ?action, "reconciled"),
                Err(controller::Error::ObjectNotFound(job)) => turns.forget(job.namespace.as_deref(), &job.name),
                Err(controller::Error::ReconcilerFailed(error, job)) => {
                    warn!(%job, error = chain(&error), "reconciling failed");
                }
                Err(error) => warn!(error = chain(&error), "a turn was not given"),
            }
            std::future::ready(())
        });
    tokio::join!(results, when_synced(jobs, pods, health));
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn watch_jobs(
    api: Api<Guarded>,
    writer: Writer<Guarded>,
    desks: Arc<Desks>,
) -> impl Stream<Item = Result<Guarded, watcher::Error>> {
    watcher(api, watching::config())
        .backoff(Pauses::default())
        .modify(|job| job.meta_mut().managed_fields = None)
        .inspect(move |event| {
            if let Ok(watcher::Event::Delete(job)) = event {
                desks.dismiss(&JobUid(job.uid().unwrap_or_default()));
            }
        })
        .reflect(writer)
        .touched_objects()
        .predicate_filter(what_was_asked, PredicateConfig::default())
}

fn watch_pods(api: Api<Pod>, writer: Writer<Pod>) -> impl Stream<Item = Result<Pod, watcher::Error>> {
    watcher(api, watching::config().labels(JOB_UID_LABEL))
        .backoff(Pauses::default())
        .modify(observe::trim)
        .reflect(writer)
        .touched_objects()
}

/// What of a job can change by somebody else's doing: its status is written here, once a second, and needs no turn.
fn what_was_asked(job: &Guarded) -> Option<u64> {
    let meta = job.meta();
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, meta.deletion_timestamp.is_some()).hash(&mut hasher);
    Some(hasher.finish())
}

/// One item for each change of leadership.
fn changes(leading: watch::Receiver<bool>) -> impl Stream<Item = ()> {
    stream::unfold(leading, async |mut leading| leading.changed().await.ok().map(|()| ((), leading)))
}

async fn when_synced(jobs: Store<Guarded>, pods: Store<Pod>, health: Arc<Health>) {
    if jobs.wait_until_ready().await.is_ok() && pods.wait_until_ready().await.is_ok() {
        health.caches_synced.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::{apply::ApplyError, handle::HandleError};

    fn job(generation: i64, status: &str) -> Guarded {
        serde_json::from_value(json!({
            "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "generation": generation},
            "spec": {"source": {"numbers": {"count": 1}}, "task": {"noop": {}}},
            "status": {"display": {"status": status}}
        }))
        .unwrap()
    }

    #[test]
    fn our_own_status_writes_cause_no_turn() {
        assert!(job(1, "Planning").0.is_ok());
        assert_eq!(what_was_asked(&job(1, "Planning")), what_was_asked(&job(1, "Running")));
        assert_ne!(what_was_asked(&job(1, "Running")), what_was_asked(&job(2, "Running")));
    }

    #[test]
    fn a_failure_without_an_answer_is_told_from_a_bad_answer() {
        let deadline = || CallError::Deadline { action: "create pod", subject: "a".into(), seconds: 5 };
        let answered = |code| {
            let source = Box::new(kube::Error::Api(Box::new(Status { code, ..Status::default() })));
            CallError::Api { action: "create pod", subject: "a".into(), source }
        };
        assert!(is_unanswered(&ApplyError::Create(deadline()).into()));
        assert!(is_unanswered(&HandleError::Read(answered(503)).into()));
        assert!(!is_unanswered(&HandleError::Read(answered(409)).into()));
        assert!(!is_unanswered(&ReconcileError::Deadline(60)));
    }

    #[test]
    fn an_unreadable_job_is_still_an_object() {
        let broken: Guarded = serde_json::from_value(json!({
            "apiVersion": "hyperflow.dev/v1alpha1", "kind": "ShardJob",
            "metadata": {"name": "a", "namespace": "b", "uid": "u"},
            "spec": {"source": 7}
        }))
        .unwrap();
        assert!(broken.0.is_err());
        assert_eq!(broken.name_any(), "a");
    }
}
