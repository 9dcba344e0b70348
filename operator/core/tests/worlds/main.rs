//! Small worlds, all of them: two operators, two workers and three shards, and everything that can happen to them.
//!
//! Where the simulator throws dice, this tries every order: messages that wait, streams that break, processes that die,
//! writes without an answer, leases that run out. What is explored is the core itself, not a model of it: its coordinator,
//! its worker, its reading back of status. Only how often things may go wrong is bounded: once in 1.5 million states, in
//! half a minute. `WORLDS=large cargo test -p hyperflow-core --test worlds -- --nocapture` lets them go wrong twice, or once
//! in any disorder: 84 million states, in a quarter of an hour and 6 GiB.
//!
//! | what | file |
//! | --- | --- |
//! | what there is, and what follows from what happens | `world.rs` |
//! | what may happen next | `choices.rs` |
//! | operators and their status writes | `operators.rs` |
//! | a desk's turns | `desks.rs` |
//! | a worker process and its attempts | `processes.rs` |
//! | streams | `streams.rs` |
//! | when two states are one | `kept.rs` |
//! | what must hold, and what must be reached | `promises.rs` |

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "the scope comes from the environment")]

mod choices;
mod desks;
mod kept;
mod operators;
mod processes;
mod promises;
mod streams;
mod world;

use std::{sync::Arc, time::Instant};

use promises::Paths;
use stateright::{Checker, HasDiscoveries, Model};
use world::{Scope, World};

const SMALL: [Scope; 1] = [Scope { troubles: 1, pauses: 1, checkpoints: 0, disorder: false }];
const LARGE: [Scope; 3] = [
    Scope { troubles: 1, pauses: 0, checkpoints: 1, disorder: true },
    Scope { troubles: 1, pauses: 1, checkpoints: 1, disorder: false },
    Scope { troubles: 2, pauses: 0, checkpoints: 0, disorder: false },
];

#[test]
fn every_small_world_keeps_its_promises() {
    let large = std::env::var("WORLDS").is_ok_and(|size| size == "large");
    let paths = Arc::new(Paths::default());
    for scope in if large { LARGE.iter() } else { SMALL.iter() } {
        explore(*scope, &paths);
    }
    for (path, _, times) in paths.times() {
        println!("{times:>12}  {path}");
    }
    let missed = paths.times().filter(|(_, rare, times)| *times == 0 && (large || !rare));
    let missed: Vec<&str> = missed.map(|(path, ..)| path).collect();
    assert!(missed.is_empty(), "no world came to {missed:?}");
}

/// Depth first, for then states are made in an order in which few must be kept, and most steps were taken just before.
fn explore(scope: Scope, paths: &Arc<Paths>) {
    let begun = Instant::now();
    let worlds = World::new(scope, Arc::clone(paths)).checker().threads(2).spawn_dfs().join();
    let (states, steps, depth) = (worlds.unique_state_count(), worlds.state_count(), worlds.max_depth());
    println!("{scope:?}: {states} states, {steps} steps, depth {depth}, {:.1?}", begun.elapsed());
    if !worlds.discoveries().is_empty() {
        show_shortest(scope);
    }
}

/// Something is broken: the shortest way there is found breadth first.
fn show_shortest(scope: Scope) {
    let worlds = World::new(scope, Arc::default()).checker().finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let (name, path) = worlds.discoveries().into_iter().next().expect("it was found before");
    let broken = path.last_state().broken.clone();
    for action in path.into_actions() {
        println!("  {action:?}");
    }
    match broken {
        Some(broken) => panic!("{}: {}", broken.promise, broken.how),
        None => panic!("'{name}' is broken"),
    }
}
