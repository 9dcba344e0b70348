//! Everything a job's status said while a test looked, version by version.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use hyperflow_api::{ShardJob, ShardJobStatus};
use hyperflow_core::ranges::RangeSet;
use kube::{
    Api, ResourceExt,
    api::{WatchEvent, WatchParams},
};
use tokio::task::JoinHandle;

use crate::{
    Result,
    cluster::Place,
    ensure,
    job::{Job, has, shards},
};

/// Pause before the API server is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// One version of a status.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it was seen.
    pub at: Instant,
    /// What it said.
    pub status: ShardJobStatus,
    /// How many bytes it took to say that.
    pub bytes: usize,
}

/// Writes down a job's status until it is closed.
pub struct Diary {
    entries: Arc<Mutex<Vec<Entry>>>,
    writer: JoinHandle<Result>,
}

impl Place {
    /// Begins to write down everything the job's status says, through outages of the API server.
    ///
    /// # Errors
    /// When there is no cluster.
    pub async fn diary(&self, job: &Job) -> Result<Diary> {
        let api: Api<ShardJob> = Api::namespaced(self.cluster.impatient().await?, &self.namespace);
        let entries = Arc::new(Mutex::new(Vec::new()));
        let writer = tokio::spawn(follow(api, job.name.clone(), Arc::clone(&entries)));
        Ok(Diary { entries, writer })
    }
}

impl Diary {
    /// What was written so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a version says something; how long after `since` the first such version came.
    ///
    /// # Errors
    /// `limit` after `since`.
    pub async fn wait(
        &self,
        what: &str,
        since: Instant,
        limit: Duration,
        says: impl Fn(&ShardJobStatus) -> bool,
    ) -> Result<Duration> {
        loop {
            if let Some(entry) = self.so_far().iter().find(|entry| says(&entry.status)) {
                return Ok(entry.at.saturating_duration_since(since));
            }
            ensure(since.elapsed() <= limit, || format!("{what} was not seen in {limit:?}"))?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All that was written. It must go forward: see [`goes_forward`].
    ///
    /// # Errors
    /// When the writer failed before, or something went back.
    pub async fn close(self) -> Result<Vec<Entry>> {
        if self.writer.is_finished() {
            self.writer.await??;
            return Err("the job was deleted while a diary was kept".into());
        }
        self.writer.abort();
        let entries = std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        ensure(!entries.is_empty(), || "nothing was seen of the job".into())?;
        goes_forward(&entries)?;
        Ok(entries)
    }
}

/// Ends when the job is deleted.
async fn follow(api: Api<ShardJob>, name: String, entries: Arc<Mutex<Vec<Entry>>>) -> Result {
    let write = |job: &ShardJob| -> Result {
        let status = job.status.clone().unwrap_or_default();
        let bytes = serde_json::to_vec(&status)?.len();
        let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.last().is_none_or(|last| last.status != status) {
            entries.push(Entry { at: Instant::now(), status, bytes });
        }
        Ok(())
    };
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    loop {
        tokio::time::sleep(PAUSE).await;
        // An API server that was started again knows nothing of the versions before: what is there now comes first.
        let Ok(Some(job)) = api.get_opt(&name).await else { continue };
        write(&job)?;
        let Ok(events) = api.watch(&only, &job.resource_version().unwrap_or_default()).await else { continue };
        let mut events = events.boxed();
        // It ends when the connection does, or with an error that a new beginning mends.
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                WatchEvent::Added(job) | WatchEvent::Modified(job) => write(&job)?,
                WatchEvent::Deleted(_) => return Ok(()),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(_) => break,
            }
        }
    }
}

/// What is true for good: shards that are done or given up stay so, terms only rise, an end is an end.
///
/// # Errors
/// With the two versions between which something went back.
pub fn goes_forward(entries: &[Entry]) -> Result {
    for (before, after) in entries.iter().zip(entries.iter().skip(1)) {
        let (was, is) = (&before.status, &after.status);
        let shrank = lost(&shards(was).completed_indexes, &shards(is).completed_indexes)?
            || lost(&shards(was).failed_indexes, &shards(is).failed_indexes)?;
        let reopened = ["Complete", "Failed"].iter().any(|end| has(was, end) && !has(is, end));
        ensure(!shrank && !reopened && term(was) <= term(is), || {
            format!("status went back, from\n{was:?}\nto\n{is:?}")
        })?;
    }
    Ok(())
}

fn lost(before: &str, after: &str) -> Result<bool> {
    let (before, after): (RangeSet, RangeSet) = (before.parse()?, after.parse()?);
    Ok(before.iter().any(|index| !after.contains(index)))
}

/// The term of the operator process that wrote a status; 0 before there was one.
#[must_use]
pub fn term(status: &ShardJobStatus) -> i64 {
    status.recovery.as_ref().map_or(0, |notes| notes.term)
}

/// The longest time without a new version, from the first shard that was done to the end.
#[must_use]
pub fn longest_silence(entries: &[Entry]) -> Duration {
    let running: Vec<&Entry> = entries.iter().filter(|entry| shards(&entry.status).succeeded > 0).collect();
    let silences = running.iter().zip(running.iter().skip(1)).map(|(before, after)| after.at - before.at);
    silences.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hyperflow_api::status::{Recovery, ShardCounts};

    use super::*;

    fn entry(term: i64, done: &str) -> Entry {
        let status = ShardJobStatus {
            shards: Some(ShardCounts { completed_indexes: done.into(), ..ShardCounts::default() }),
            recovery: Some(Recovery { term, ..Recovery::default() }),
            ..ShardJobStatus::default()
        };
        Entry { at: Instant::now(), status, bytes: 0 }
    }

    #[test]
    fn what_goes_back_is_noticed() {
        goes_forward(&[entry(1, ""), entry(1, "0-3"), entry(2, "0-3,7"), entry(4, "0-7")]).unwrap();
        goes_forward(&[entry(2, "0"), entry(1, "0")]).unwrap_err();
        goes_forward(&[entry(1, "0-3"), entry(1, "0-2,4-9")]).unwrap_err();
    }
}
