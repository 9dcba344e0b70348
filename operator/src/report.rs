//! Writes the status. One write at a time, each with the resource version that this process knows (P13).

use std::time::Duration;

use hyperflow_api::{
    ShardJob, ShardJobStatus,
    ids::{JobUid, Takeover},
};
use hyperflow_core::ledger;
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::sync::watch;
use tracing::{debug, error, warn};

use crate::{
    client::{CallError, call, call_within},
    metrics::Metrics,
    telemetry::chain,
};

/// Pauses before looking again after an answer that said nothing: doubled up to the last. That is short: when the API
/// server is back, workers wait for what is acknowledged with the next write.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for the answer to such a look. A question that the API server took before its store was gone may stay
/// without one after the store is back: it is asked again soon.
const LOOK: Duration = Duration::from_secs(2);
/// The pause before the core hears of a refusal that a repetition would meet as well.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API server has it.
    Stored,
    /// It does not have it, nor anybody else's.
    Refused,
    /// Another process has taken the job over, or we do not lead any more.
    Superseded,
    /// The object is gone, or another one has its name.
    Gone,
}

/// The object as last seen, and who we are to it.
pub struct Ledger {
    api: Api<ShardJob>,
    /// Carries UID and resource version; its status is replaced with each write.
    job: ShardJob,
    takeover: Takeover,
    /// No write has been stored yet, so that the next one raises the term: it must be based on the very object that the
    /// coordinator was made from.
    taking_over: bool,
    leading: watch::Receiver<bool>,
    metrics: Metrics,
}

impl Ledger {
    /// A ledger for a coordinator that was made from `job`.
    #[must_use]
    pub fn new(
        client: Client,
        job: ShardJob,
        takeover: Takeover,
        leading: watch::Receiver<bool>,
        metrics: Metrics,
    ) -> Self {
        let api = Api::namespaced(client, &job.namespace().unwrap_or_default());
        Self { api, job, takeover, taking_over: true, leading, metrics }
    }

    /// Stores a status. Returns only when it is known whether the API server has it, however long that takes.
    pub async fn store(&mut self, status: ShardJobStatus) -> Outcome {
        let name = self.job.name_any();
        self.job.status = Some(status);
        loop {
            // The right to write is checked at the moment of writing.
            if !*self.leading.borrow() {
                return Outcome::Superseded;
            }
            self.count();
            let params = PostParams::default();
            let write = self.api.replace_status(&name, &params, &self.job);
            let error = match call("write status of shardjob", &name, write).await {
                Ok(stored) => return self.stored(&stored),
                Err(error) if error.is_not_found() => return Outcome::Gone,
                Err(error) => error,
            };
            if error.is_refusal() && !error.is_conflict() {
                error!(error = chain(&error), "the API server does not take the status");
                tokio::time::sleep(REFUSED_PAUSE).await;
                return Outcome::Refused;
            }
            let conflict = error.is_conflict();
            // Somebody else wrote, or nobody knows whether we did: look before anything is repeated (P13).
            let Some(live) = self.look(&name, error).await else { return Outcome::Gone };
            match ledger::next(self.compare(&live), conflict) {
                ledger::Next::Stored => return self.stored(&live),
                ledger::Next::Superseded => return Outcome::Superseded,
                ledger::Next::Refused => {
                    self.rebase(&live);
                    return Outcome::Refused;
                }
                ledger::Next::WriteAgain => self.rebase(&live),
            }
        }
    }

    fn stored(&mut self, live: &ShardJob) -> Outcome {
        self.taking_over = false;
        self.rebase(live);
        Outcome::Stored
    }

    fn rebase(&mut self, live: &ShardJob) {
        self.job.metadata.resource_version = live.resource_version();
    }

    /// The object as it is, once there is an answer. None when it is gone.
    async fn look(&self, name: &str, mut why: CallError) -> Option<ShardJob> {
        let mut pause = FIRST_PAUSE;
        loop {
            if why.is_conflict() {
                debug!(error = chain(&why), "somebody else wrote the object");
            } else {
                warn!(error = chain(&why), "looking whether the status was written");
            }
            match call_within(LOOK, "get shardjob", name, self.api.get_opt(name)).await {
                Ok(live) => return live.filter(|live| live.uid() == self.job.uid()),
                Err(error) => why = error,
            }
            tokio::time::sleep(pause).await;
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    fn compare(&self, live: &ShardJob) -> ledger::Found {
        let Some(status) = &self.job.status else { return ledger::Found::Another };
        let written = ledger::Written { status, takeover: self.takeover, raises_term: self.taking_over };
        let untouched = live.resource_version() == self.job.resource_version();
        ledger::compare(live.status.as_ref(), written, untouched)
    }

    fn count(&self) {
        self.metrics.status_writes.inc();
        let bytes = serde_json::to_vec(&self.job.status).map_or(0, |bytes| bytes.len());
        self.metrics.status_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// Stores the status of a job that is not sound, on top of what was seen.
///
/// # Errors
/// When it was not stored, or nobody knows.
pub async fn refuse(client: &Client, job: &ShardJob, status: ShardJobStatus) -> Result<(), CallError> {
    if job.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let name = job.name_any();
    let api: Api<ShardJob> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    let mut job = job.clone();
    job.status = Some(status);
    call("write status of shardjob", &name, api.replace_status(&name, &PostParams::default(), &job)).await.map(drop)
}

/// The object now, past all caches. None when it is gone, or another one has its name.
///
/// # Errors
/// When the API server does not say.
pub async fn fresh(client: &Client, namespace: &str, name: &str, uid: &JobUid) -> Result<Option<ShardJob>, CallError> {
    let api: Api<ShardJob> = Api::namespaced(client.clone(), namespace);
    let live = call("get shardjob", name, api.get_opt(name)).await?;
    Ok(live.filter(|live| live.uid().as_deref() == Some(&uid.0)))
}
