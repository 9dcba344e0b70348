//! What was visited: a simulator that never takes a path proves nothing about it.

use std::collections::BTreeMap;

use super::faults::Fault;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub paths: BTreeMap<&'static str, u64>,
    pub faults: BTreeMap<String, u64>,
}

impl Tally {
    pub fn visit(&mut self, path: &'static str) {
        *self.paths.entry(path).or_default() += 1;
    }

    pub fn fault(&mut self, fault: Fault) {
        let name = format!("{fault:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default();
        *self.faults.entry(name.into()).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        for (path, times) in &other.paths {
            *self.paths.entry(path).or_default() += times;
        }
        for (fault, times) in &other.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
    }
}

/// Every one of these must be visited by a thousand seeds.
pub const PATHS: [&str; 83] = [
    "a rule failed the job",
    "a rule gave a shard up",
    "a shard ended the job",
    "a disk is back and not as it was",
    "a disk is of another plan",
    "a disk was full",
    "a group came from a peer",
    "a group came from the source",
    "no copy could be read",
    "replicas dropped",
    "several machines away",
    "the source is gone",
    "the source is gone and a machine with copies is away",
    "a shard without its input",
    "the job ended without its input",
    "copies are all there",
    "a machine came back soon and what differs moved",
    "a machine came back soon and nothing moved",
    "a machine came back late and nothing moved",
    "all shards failed alike",
    "ended with what is tolerated",
    "more failed than is tolerated",
    "run again",
    "run again after the end",
    "run again while it ran",
    "API server away",
    "API server away for long",
    "deleted",
    "duplicated",
    "frozen fields edited",
    "given up as poison",
    "given up for want of memory",
    "handed back",
    "late publish found",
    "late write stored",
    "leader changed",
    "lease re-issued",
    "looked at an old list",
    "machine cordoned",
    "machine cut off",
    "machine frozen",
    "machine without power",
    "message lost, repeated, swapped or late",
    "operator cut off",
    "operator died between two effects",
    "operator killed",
    "orphaned",
    "out of memory, told early",
    "out of memory, told late",
    "outranked",
    "output full",
    "pod deleted",
    "pod evicted",
    "power lost",
    "released unswept",
    "released when swept",
    "restored",
    "resumed from a checkpoint",
    "revoked",
    "scaled",
    "spec change ended the job",
    "store failed",
    "store's answer lost",
    "stream cut",
    "stream stalled",
    "superseded",
    "suspended",
    "swept",
    "swept after deletion",
    "task failed",
    "the last command ran",
    "twins re-issued",
    "two desks at a time",
    "stopped in line",
    "waited in line",
    "worker died between two steps",
    "worker frozen",
    "worker killed",
    "worker out of memory",
    "write found stored",
    "write lost",
    "write met another version",
    "write refused",
];
