//! Every mutant, until it is caught: a part of the simulator in the copy of the core where mutants live.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use hyperflow_core::mutant;

use super::{
    found,
    list::MUTANTS,
    setting,
    story::Run,
    tally::{PATHS, Tally},
};

/// How a mutant fared.
enum Fate {
    /// By which promise, or which path that was never taken, and with which seed; 0 for a run that was found before.
    Caught(String, u64),
    Alive,
}

#[test]
fn every_mutant_is_caught() {
    let budget = setting("SEEDS", 10_000);
    let only = std::env::var("ONLY").unwrap_or_default();
    let (next, fates) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let lane = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(it) = MUTANTS.get(place) else { break };
            if !it.name.contains(&only) {
                continue;
            }
            let fate = hunt(it.name, budget);
            fates.lock().unwrap().push((place, fate));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(lane);
        }
    });
    let mut fates = fates.into_inner().unwrap();
    fates.sort_by_key(|(place, _)| *place);
    println!("| rule | mutant | caught by | seeds |\n| --- | --- | --- | --- |");
    let mut alive = Vec::new();
    for (place, fate) in fates {
        let it = &MUTANTS[place];
        match fate {
            Fate::Caught(by, seed) => println!("| {} | {} | {by} | {seed} |", it.rule, it.name),
            Fate::Alive => {
                println!("| {} | {} | **nobody** | {budget} |", it.rule, it.name);
                alive.push(it.name);
            }
        }
    }
    assert!(alive.is_empty(), "{} of {} mutants live on: {alive:#?}", alive.len(), MUTANTS.len());
    println!("\n{} mutants, all caught within {budget} seeds", MUTANTS.len());
}

/// Plays what was found before, and then seeds, until a promise is broken; then looks for paths that were never taken, though every sound core takes them.
fn hunt(name: &'static str, budget: u64) -> Fate {
    mutant::wake(Some(name));
    let again = found().into_iter().find_map(|(_, run)| run.play().err());
    if let Some(failure) = again.filter(|_| std::env::var_os("STORY").is_none()) {
        return Fate::Caught(failure.promise, 0);
    }
    let mut tally = Tally::default();
    for seed in 1..=budget {
        let run = Run::of_seed(seed);
        match run.play() {
            Ok(told) => tally.add(&told.tally),
            Err(failure) => {
                if std::env::var_os("STORY").is_some() {
                    println!("{name}: {}", serde_json::to_string(&run.shortened(&failure)).unwrap());
                }
                return Fate::Caught(failure.promise, seed);
            }
        }
    }
    let taken: BTreeSet<&str> = tally.paths.keys().copied().collect();
    match PATHS.iter().find(|path| !taken.contains(**path)) {
        Some(path) => Fate::Caught(format!("never came to '{path}'"), budget),
        None => Fate::Alive,
    }
}
