//! Both ends of the protocol, driven against each other by a seed: one seed, one run.
//!
//! The cores are the real ones. The world around them is a model that loses, delays, repeats and swaps messages, kills
//! and freezes workers, machines and operators between any two steps, lets two operators lead, loses status writes or
//! their answers, hides changes, restores older states, and takes the power away before something was synced, while users
//! suspend, scale, edit and delete. Then it heals, and every job must come to its end.
//!
//! `make sim SEEDS=10000`; `make sim SEED_START=42 SEEDS=1` plays one again. A run that fails is played again with less in
//! it, and that story is printed. Runs that once failed, or that chance seldom
//! comes to, are in `found/`.
//!
//! | what | file |
//! | --- | --- |
//! | what a seed settles beforehand | `scenario.rs`, `faults.rs` |
//! | the order of things, and whose turn it is | `world.rs`, `clock.rs` |
//! | how faults come to pass | `happen.rs` |
//! | the API server, and writing to it | `api.rs`, `ledger.rs` |
//! | the operator's processes | `operators.rs` |
//! | machines, pods, kubelets | `pods.rs` |
//! | a worker process, an attempt of it | `process.rs`, `attempt.rs` |
//! | disks with blocks on them | `disks.rs` |
//! | copies that are made again, and machines that come back | `calm.rs` |
//! | copies that are away while there is no source | `absent.rs` |
//! | streams | `streams.rs` |
//! | two attempts of one shard; the last command | `twins.rs` |
//! | the output store | `store.rs` |
//! | what must be true | `judge.rs`, and `invariants` of the core where things happen |
//! | what failed, in short | `story.rs`, `log.rs` |
//! | what was visited | `tally.rs` |

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "the number of seeds comes from the environment")]

mod absent;
mod api;
mod attempt;
mod calm;
mod chance;
mod clock;
mod disks;
mod faults;
mod happen;
mod judge;
mod ledger;
mod log;
mod operators;
mod pods;
mod process;
mod scenario;
mod store;
mod story;
mod streams;
mod tally;
mod twins;
mod world;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use story::{Failure, Run};
use tally::{PATHS, Tally};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Plays seeds on all processors until one fails. Returns the sum of what was visited.
fn play(seeds: std::ops::Range<u64>) -> Result<Tally, (u64, Failure)> {
    let (next, sum, failed) = (AtomicU64::new(seeds.start), Mutex::new(Tally::default()), Mutex::new(None));
    let lane = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.lock().unwrap().is_some() {
                break;
            }
            match Run::of_seed(seed).play() {
                Ok(told) => tally.add(&told.tally),
                Err(failure) => *failed.lock().unwrap() = Some((seed, failure)),
            }
        }
        sum.lock().unwrap().add(&tally);
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(lane);
        }
    });
    let (sum, failed) = (sum.into_inner().unwrap(), failed.into_inner().unwrap());
    failed.map_or(Ok(sum), Err)
}

#[test]
fn every_seed_ends_as_it_must() {
    let (start, seeds) = (setting("SEED_START", 1), setting("SEEDS", 300));
    let began = Instant::now();
    let tally = play(start..start + seeds).unwrap_or_else(|(seed, failure)| tell(seed, &failure));
    print(seeds, &tally, began.elapsed().as_secs_f64());
    for path in PATHS {
        assert!(seeds < 3000 || tally.paths.contains_key(path), "no run ever came to '{path}'");
    }
}

/// Prints the shortest story that was found of a seed that fails.
fn tell(seed: u64, failure: &Failure) -> ! {
    let run = Run::of_seed(seed);
    let short = run.shortened(failure);
    let (story, lines) = (short.story(), usize::try_from(setting("LINES", 150)).unwrap());
    for line in &story[story.len().saturating_sub(lines)..] {
        println!("{line}");
    }
    println!("\nseed {seed}: {}", failure.message);
    println!("the story above is of this run, which is the same with less in it:");
    println!("{}", serde_json::to_string(&short).unwrap());
    println!("play it again: make sim SEED_START={seed} SEEDS=1\n");
    panic!("seed {seed} broke a promise");
}

fn print(seeds: u64, tally: &Tally, seconds: f64) {
    println!("| seeds | events | seconds | violations |\n| --- | --- | --- | --- |");
    println!("| {seeds} | {} | {seconds:.1} | 0 |\n", tally.events);
    println!("| fault | times |\n| --- | --- |");
    tally.faults.iter().for_each(|(fault, times)| println!("| {fault} | {times} |"));
    println!("\n| path | times |\n| --- | --- |");
    tally.paths.iter().for_each(|(path, times)| println!("| {path} | {times} |"));
}

/// Runs in which something was once wrong, or that bring about what chance seldom does, each by the name of what it is.
fn found() -> Vec<(String, Run)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/found");
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let run = serde_json::from_slice(&std::fs::read(&path).unwrap());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        runs.push((name, run.unwrap_or_else(|error| panic!("{}: {error}", path.display()))));
    }
    runs.sort_by(|one, other| one.0.cmp(&other.0));
    runs
}

#[test]
fn what_was_found_stays_mended() {
    for (name, run) in found() {
        if let Err(failure) = run.play() {
            panic!("'{name}' is back: {}", failure.message);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=50 {
        let (one, other) = (Run::of_seed(seed).play(), Run::of_seed(seed).play());
        assert_eq!(one.ok().map(|told| told.hash), other.ok().map(|told| told.hash), "seed {seed}");
    }
}
