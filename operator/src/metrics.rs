//! What is counted. Names and labels are part of what users rely on.

use std::fmt;

use hyperflow_api::status::ShardCounts;
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

/// Shards of a job in a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShardLabels {
    namespace: String,
    job: String,
    state: &'static str,
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

    /// Removes a job's series: its desk has ended, and nobody would bring them up to date.
    pub fn forget(&self, namespace: &str, job: &str) {
        for (state, _) in states(&ShardCounts::default()) {
            self.shards.remove(&labels(namespace, job, state));
        }
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
        metrics.reconciled.get_or_create(&ResultLabels { result: "ok" }).inc();
        let written = text(&registry).unwrap();
        for line in [
            r#"hyperflow_shards{namespace="default",job="copy",state="active"} 7"#,
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
        assert!(!text(&registry).unwrap().contains("hyperflow_shards{"));
    }
}
