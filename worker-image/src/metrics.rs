//! What a worker counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::blocks::metrics::BlockMetrics;

/// How an attempt ended, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ending {
    /// `published`, `found`, `planned`, `swept`, `stopped`, or the class of the failure.
    pub outcome: &'static str,
}

/// All counters of the process. Each is one atomic number.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Attempts that ended.
    pub attempts: Family<Ending, Counter>,
    /// Attempts that run.
    pub running: Gauge,
    /// Bytes of input read.
    pub bytes_read: Counter,
    /// Bytes written to staging.
    pub bytes_written: Counter,
    /// Checkpoints made durable.
    pub checkpoints: Counter,
    /// 1 while a stream to an operator is open.
    pub connected: Gauge,
    /// Of blocks.
    pub blocks: BlockMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hyperflow_worker");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this worker", build);
        let mut metrics = Self {
            registry,
            attempts: Family::default(),
            running: Gauge::default(),
            bytes_read: Counter::default(),
            bytes_written: Counter::default(),
            checkpoints: Counter::default(),
            connected: Gauge::default(),
            blocks: BlockMetrics::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("attempts", "Attempts that ended, by outcome", metrics.attempts.clone());
        registry.register("attempts_running", "Attempts that run", metrics.running.clone());
        registry.register_with_unit("input_read", "Input read", Unit::Bytes, metrics.bytes_read.clone());
        registry.register_with_unit("output_written", "Output written", Unit::Bytes, metrics.bytes_written.clone());
        registry.register("checkpoints", "Checkpoints made durable", metrics.checkpoints.clone());
        registry.register("connected", "1 while a stream to an operator is open", metrics.connected.clone());
        metrics.blocks.register(registry);
        metrics
    }
}

impl Metrics {
    /// All of them in the OpenMetrics text form.
    ///
    /// # Errors
    /// When a value cannot be written as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_seen() {
        let metrics = Metrics::default();
        metrics.attempts.get_or_create(&Ending { outcome: "published" }).inc_by(3);
        metrics.bytes_read.inc_by(7);
        let text = metrics.encode().unwrap();
        assert!(text.contains("hyperflow_worker_attempts_total{outcome=\"published\"} 3"), "{text}");
        assert!(text.contains("hyperflow_worker_input_read_bytes_total 7"), "{text}");
        assert!(text.contains("hyperflow_worker_build_info{version="), "{text}");
    }
}
