//! What is counted. Names and labels are part of what users rely on.

use std::fmt;

use hyperflow_api::status::ShardCounts;
use hyperflow_core::blocks::Figures;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

/// How a reconciliation ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    /// `ok`, `panic`, or the name of the error.
    pub result: &'static str,
}

/// Shards of a job in a state, or copies of its blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShardLabels {
    namespace: String,
    job: String,
    state: &'static str,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    namespace: String,
    job: String,
}

/// Where bytes of a job's blocks came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FromLabels {
    namespace: String,
    job: String,
    from: &'static str,
}

/// All metrics. Cheap to clone: the clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Reconciliations that ended.
    pub reconciled: Family<ResultLabels, Counter>,
    /// How long they took.
    pub reconcile_seconds: Duration,
    /// Shards by state.
    pub shards: Family<ShardLabels, Gauge>,
    /// Copies of groups of blocks by state.
    pub blocks: Family<ShardLabels, Gauge>,
    /// Groups with fewer whole copies than wanted.
    pub blocks_under_replicated: Family<JobLabels, Gauge>,
    /// Copies of groups to be made.
    pub blocks_queued: Family<JobLabels, Gauge>,
    /// Bytes of blocks that workers got.
    pub block_bytes: Family<FromLabels, Counter>,
    /// Status writes that were sent.
    pub status_writes: Counter,
    /// Their size.
    pub status_bytes: Counter,
    /// Workers in session.
    pub sessions: Gauge,
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Desks that ended in a panic.
    pub desk_panics: Counter,
}

/// A histogram of seconds, from 1 ms to 16 s.
#[derive(Clone, Debug)]
pub struct Duration(pub Histogram);

impl Default for Duration {
    fn default() -> Self {
        Self(Histogram::new([0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0]))
    }
}

impl Metrics {
    /// A registry that knows them all. Counters get their `_total` when they are written out.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut all = Registry::with_prefix("hyperflow");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        all.register("build", "The operator's version", version);
        all.register("reconcile", "Reconciliations by result", self.reconciled.clone());
        all.register("reconcile_duration_seconds", "Time of a reconciliation", self.reconcile_seconds.0.clone());
        all.register("shards", "Shards of a job by state", self.shards.clone());
        all.register("blocks", "Copies of a job's groups of blocks by state", self.blocks.clone());
        let under_replicated = self.blocks_under_replicated.clone();
        all.register("blocks_under_replicated", "Groups with fewer whole copies than wanted", under_replicated);
        all.register("blocks_queued", "Copies of groups to be made", self.blocks_queued.clone());
        all.register("block_bytes", "Bytes of blocks that workers got", self.block_bytes.clone());
        all.register("status_writes", "Status writes sent", self.status_writes.clone());
        all.register("status_bytes", "Bytes of the status writes sent", self.status_bytes.clone());
        all.register("sessions", "Workers in session", self.sessions.clone());
        all.register("leader", "1 while this replica leads", self.leader.clone());
        all.register("desk_panics", "Desks that ended in a panic", self.desk_panics.clone());
        all
    }

    /// Sets a job's series.
    pub fn set_shards(&self, namespace: &str, job: &str, counts: &ShardCounts) {
        for (state, count) in states(counts) {
            self.shards.get_or_create(&labels(namespace, job, state)).set(count.into());
        }
    }

    /// Sets a job's series of blocks.
    pub fn set_blocks(&self, namespace: &str, job: &str, figures: &Figures) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in block_states(figures) {
            self.blocks.get_or_create(&labels(namespace, job, state)).set(gauge(count));
        }
        let labels = JobLabels { namespace: namespace.into(), job: job.into() };
        self.blocks_under_replicated.get_or_create(&labels).set(gauge(figures.under_replicated));
        self.blocks_queued.get_or_create(&labels).set(gauge(figures.queued));
        for (from, bytes) in block_sources(figures) {
            let counter = self.block_bytes.get_or_create(&from_labels(namespace, job, from)).clone();
            counter.inc_by(bytes.saturating_sub(counter.get()));
        }
    }

    /// Removes a job's series: its desk has ended, and nobody would bring them up to date.
    pub fn forget(&self, namespace: &str, job: &str) {
        for (state, _) in states(&ShardCounts::default()) {
            self.shards.remove(&labels(namespace, job, state));
        }
        let none = Figures::default();
        for (state, _) in block_states(&none) {
            self.blocks.remove(&labels(namespace, job, state));
        }
        for (from, _) in block_sources(&none) {
            self.block_bytes.remove(&from_labels(namespace, job, from));
        }
        let labels = JobLabels { namespace: namespace.into(), job: job.into() };
        self.blocks_under_replicated.remove(&labels);
        self.blocks_queued.remove(&labels);
    }
}

fn labels(namespace: &str, job: &str, state: &'static str) -> ShardLabels {
    ShardLabels { namespace: namespace.into(), job: job.into(), state }
}

fn states(counts: &ShardCounts) -> [(&'static str, i32); 5] {
    // Taken apart whole, so that a new state is not forgotten.
    let ShardCounts { total: _, succeeded, failed, active, waiting, pending, completed_indexes: _, failed_indexes: _ } =
        counts;
    [("succeeded", *succeeded), ("failed", *failed), ("active", *active), ("waiting", *waiting), ("pending", *pending)]
}

fn from_labels(namespace: &str, job: &str, from: &'static str) -> FromLabels {
    FromLabels { namespace: namespace.into(), job: job.into(), from }
}

fn block_states(figures: &Figures) -> [(&'static str, u64); 3] {
    [("ready", figures.ready), ("stale", figures.stale), ("corrupt", figures.corrupt)]
}

fn block_sources(figures: &Figures) -> [(&'static str, u64); 2] {
    [("peer", figures.bytes_from_peers), ("source", figures.bytes_from_source)]
}

/// The registry as text.
///
/// # Errors
/// When a metric cannot be written.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry).map(|()| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_job_come_and_go_under_the_documented_names() {
        let metrics = Metrics::default();
        let registry = metrics.registry();
        metrics.set_shards("default", "copy", &ShardCounts { active: 7, ..ShardCounts::default() });
        let mut figures =
            Figures { ready: 5, under_replicated: 2, queued: 1, bytes_from_peers: 9, ..Figures::default() };
        metrics.set_blocks("default", "copy", &figures);
        figures.bytes_from_peers = 64;
        metrics.set_blocks("default", "copy", &figures);
        metrics.reconciled.get_or_create(&ResultLabels { result: "ok" }).inc();
        let written = text(&registry).unwrap();
        for line in [
            r#"hyperflow_shards{namespace="default",job="copy",state="active"} 7"#,
            r#"hyperflow_blocks{namespace="default",job="copy",state="ready"} 5"#,
            r#"hyperflow_blocks{namespace="default",job="copy",state="corrupt"} 0"#,
            r#"hyperflow_blocks_under_replicated{namespace="default",job="copy"} 2"#,
            r#"hyperflow_blocks_queued{namespace="default",job="copy"} 1"#,
            r#"hyperflow_block_bytes_total{namespace="default",job="copy",from="peer"} 64"#,
            r#"hyperflow_reconcile_total{result="ok"} 1"#,
            "hyperflow_status_writes_total 0",
            "hyperflow_status_bytes_total 0",
            "hyperflow_desk_panics_total 0",
            "hyperflow_leader 0",
            "hyperflow_sessions 0",
            "hyperflow_build_info",
        ] {
            assert!(written.contains(line), "{line} is not in\n{written}");
        }
        metrics.forget("default", "copy");
        assert!(!text(&registry).unwrap().contains(r#"job="copy""#));
    }
}
