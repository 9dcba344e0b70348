//! A run from its seed, a failing one with less and less in it, and what is printed of that.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use serde::{Deserialize, Serialize};

use super::{
    chance::Chance,
    faults::{self, Planned},
    scenario::Scenario,
    tally::Tally,
    world::World,
};

/// Most runs that are made to tell a story with less in it.
const TRIES: usize = 300;

/// All that a run depends on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Chance of everything that is not below: latencies, orders, who is chosen.
    pub seed: u64,
    pub scenario: Scenario,
    pub faults: Vec<Planned>,
}

/// How a run ended.
pub struct Told {
    pub tally: Tally,
    pub hash: u64,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The promise, by the first words of what was said of it.
    pub promise: String,
    pub message: String,
}

impl Run {
    pub fn of_seed(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let scenario = Scenario::draw(&mut chance);
        let faults = faults::draw(&mut chance, &scenario);
        Self { seed, scenario, faults }
    }

    pub fn play(&self) -> Result<Told, Failure> {
        caught(|| {
            let mut world = World::play(self, false);
            Told { hash: world.log.hash(), tally: std::mem::take(&mut world.tally) }
        })
    }

    /// The same failure with as few faults, and as simple a job, as can be found by leaving things out.
    pub fn shortened(&self, failure: &Failure) -> Self {
        let mut tries = 0;
        let mut fails = |run: &Self| {
            tries += 1;
            tries < TRIES && run.play().err().is_some_and(|other| other.promise == failure.promise)
        };
        let mut short = self.clone();
        let mut size = short.faults.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < short.faults.len() {
                let mut less = short.clone();
                less.faults.drain(from..(from + size).min(less.faults.len()));
                if fails(&less) {
                    short = less;
                } else {
                    from += size;
                }
            }
            size /= 2;
        }
        let simpler: [fn(&mut Scenario); 7] = [
            |it| it.finally = false,
            |it| it.speculation = false,
            |it| (it.poison, it.hungry, it.fatal, it.gentle) = (None, None, None, false),
            |it| (it.failing, it.slow) = (None, None),
            |it| it.slots = 1,
            |it| it.parallelism = 1,
            |it| it.shards = 3.min(it.shards),
        ];
        for change in simpler {
            let mut less = short.clone();
            change(&mut less.scenario);
            if fails(&less) {
                short = less;
            }
        }
        short
    }

    /// Tells the end of a run that fails.
    pub fn story(&self) -> Vec<String> {
        LINES.with_borrow_mut(Vec::clear);
        let _ = caught(|| World::play(self, true));
        LINES.with_borrow_mut(std::mem::take)
    }
}

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

impl Drop for World {
    fn drop(&mut self) {
        LINES.with_borrow_mut(|lines| lines.extend(self.log.story().map(str::to_owned)));
    }
}

/// Runs something that may panic, and keeps what the panic said to itself.
fn caught<T>(act: impl FnOnce() -> T) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.with_borrow(|quiet| *quiet) {
                return usual(info);
            }
            let place = info.location().map(|at| format!(" [{}:{}]", at.file(), at.line())).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("a panic without words");
            MESSAGE.with_borrow_mut(|kept| *kept = Some(format!("{message:.600}{place}")));
        }));
    });
    QUIET.with_borrow_mut(|quiet| *quiet = true);
    let done = panic::catch_unwind(AssertUnwindSafe(act));
    QUIET.with_borrow_mut(|quiet| *quiet = false);
    done.map_err(|_| {
        let message = MESSAGE.with_borrow_mut(Option::take).unwrap_or_default();
        let promise = match message.split_once(':') {
            Some((promise, _)) if is_promise(promise) => promise.to_owned(),
            _ => format!("panic {}", message.rsplit('[').next().unwrap_or_default().trim_end_matches(']')),
        };
        Failure { promise, message }
    })
}

/// `I3 status never leads`, `L1 every job ends`.
fn is_promise(words: &str) -> bool {
    let mut letters = words.chars();
    letters.next().is_some_and(|first| matches!(first, 'I' | 'L'))
        && letters.next().is_some_and(|it| it.is_ascii_digit())
}
