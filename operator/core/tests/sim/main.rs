//! Both ends of the protocol, driven against each other by a seed: one seed, one run.
//!
//! The world loses streams, kills and freezes workers, kills the operator, refuses and forgets status writes; then it
//! heals, and every job must end with every shard published. `SEEDS=5000 cargo test -p hyperflow-core --test sim` runs
//! more of them; `SEED_START=42 SEEDS=1` runs one again.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "the number of seeds comes from the environment")]

mod chance;
mod node;
mod world;

use std::collections::BTreeMap;

use world::World;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn every_seed_ends_with_every_shard_published_once() {
    let (start, seeds) = (setting("SEED_START", 1), setting("SEEDS", 300));
    let mut visited: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in start..start + seeds {
        let world = World::run(seed);
        for (path, times) in world.visited {
            *visited.entry(path).or_default() += times;
        }
    }
    // A simulator that never takes a fault proves nothing.
    let paths = [
        "worker killed",
        "worker frozen",
        "stream cut",
        "operator killed",
        "write lost",
        "write refused",
        "late publish found",
        "resumed from a checkpoint",
        "lease re-issued",
        "revoked",
        "handed back",
        "task failed",
    ];
    for path in paths {
        assert!(seeds < 50 || visited.contains_key(path), "no run ever came to '{path}': {visited:?}");
    }
    println!("{seeds} seeds: {visited:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 1234] {
        assert_eq!(World::run(seed).log, World::run(seed).log, "seed {seed}");
    }
}
