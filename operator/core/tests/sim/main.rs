//! Both ends of the protocol, driven against each other by a seed: one seed, one run.
//!
//! The world loses streams, kills and freezes workers and whole machines, evicts pods, lets two operators lead at a time,
//! loses status writes, takes the API server away and restores it from an older state, while users suspend and delete.
//! Then it heals, and every job must come to its end. `SEEDS=5000 cargo test -p hyperflow-core --test sim` runs more of
//! them; `TRACE=1 SEED_START=42 SEEDS=1` runs one again and prints what the desks hear and say.
//!
//! | what | file |
//! | --- | --- |
//! | what a seed settles beforehand | `scenario.rs` |
//! | the clock, and whose turn it is | `world.rs` |
//! | what breaks, and what users do | `faults.rs` |
//! | the API server | `api.rs` |
//! | machines, pods, kubelets | `pods.rs` |
//! | a worker process | `process.rs` |
//! | streams | `streams.rs` |
//! | the operator's processes | `operators.rs`, `ledger.rs` |
//! | the output store | `store.rs` |
//! | what must be true | `judge.rs`, and asserts where things happen |

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "the number of seeds comes from the environment")]

mod api;
mod chance;
mod faults;
mod judge;
mod ledger;
mod operators;
mod pods;
mod process;
mod scenario;
mod store;
mod streams;
mod world;

use std::collections::BTreeMap;

use world::World;

/// A simulator that never takes a path proves nothing about it.
const PATHS: [&str; 40] = [
    "API server away",
    "API server away for long",
    "committed before it was resumed",
    "deleted",
    "handed back",
    "late publish found",
    "late write stored",
    "leader changed",
    "lease re-issued",
    "machine cordoned",
    "machine cut off",
    "machine frozen",
    "machine without power",
    "operator killed",
    "orphaned",
    "out of memory, told early",
    "out of memory, told late",
    "outranked",
    "pod deleted",
    "pod evicted",
    "released unswept",
    "released when swept",
    "restored",
    "resumed from a checkpoint",
    "revoked",
    "stream cut",
    "superseded",
    "suspended",
    "swept",
    "swept after deletion",
    "task failed",
    "two desks at a time",
    "worker frozen",
    "worker killed",
    "worker out of memory",
    "write lost",
    "write met another version",
    "write refused",
    "given up as poison",
    "given up for want of memory",
];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn every_seed_ends_as_it_must() {
    let (start, seeds) = (setting("SEED_START", 1), setting("SEEDS", 300));
    let mut visited: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in start..start + seeds {
        for (path, times) in &World::run(seed).store.visited {
            *visited.entry(path).or_default() += times;
        }
    }
    println!("{seeds} seeds: {visited:#?}");
    for path in PATHS {
        assert!(seeds < 300 || visited.contains_key(path), "no run ever came to '{path}'");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 1234] {
        assert_eq!(World::run(seed).log, World::run(seed).log, "seed {seed}");
    }
}
