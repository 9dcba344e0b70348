//! What breaks, and what users do meanwhile: all of it drawn before a run begins, so that a run that fails can be told
//! again with less of it.

use serde::{Deserialize, Serialize};

use super::{chance::Chance, ledger::Fate, scenario::Scenario, streams::Trick};

/// Faults come within so many milliseconds; then the world heals.
pub const FAULTS_END: u64 = 20_000;

/// Numbers that choose one of what is there when the time comes.
pub type Which = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    OperatorKilled {
        which: Which,
        back: u64,
    },
    /// In the middle of what it was about to do.
    OperatorDies {
        which: Which,
        effects: u32,
        back: u64,
    },
    /// The one that led may not know for a while, or may have stopped long before.
    LeaderChanged {
        from: Which,
        begins: u64,
        ends: u64,
    },
    /// From the API server, and from nobody else: another leads soon, and this one goes on.
    OperatorCutOff {
        which: Which,
        millis: u64,
    },
    /// Its watch misses everything, and what it lists is old.
    OperatorBlind {
        which: Which,
        millis: u64,
    },
    ApiServerAway {
        millis: u64,
    },
    Restored {
        writes: u64,
    },
    Write {
        which: Which,
        fate: Fate,
    },
    Suspended {
        millis: u64,
    },
    Scaled {
        parallelism: u32,
    },
    /// `source`, `task` or `output` are changed after the plan.
    FrozenEdited,
    Deleted {
        abandoned: bool,
    },
    PodRefused {
        which: Which,
    },
    Evicted {
        pod: Which,
    },
    Preempted {
        pod: Which,
    },
    Cordoned {
        machine: Which,
        millis: u64,
    },
    WorkerKilled {
        pod: Which,
    },
    WorkerOutOfMemory {
        pod: Which,
    },
    /// Between two steps of an attempt.
    WorkerDies {
        pod: Which,
        steps: u32,
    },
    WorkerFrozen {
        pod: Which,
        millis: u64,
    },
    WorkerTerminated {
        pod: Which,
    },
    /// Without power for so long, while another is sound: everybody sees that it is the machine.
    MachineLost {
        machine: Which,
        millis: u64,
    },
    MachineSilent {
        machine: Which,
        millis: u64,
        how: Silence,
        drained: bool,
    },
    StreamCut {
        pod: Which,
    },
    StreamStalled {
        pod: Which,
        millis: u64,
    },
    MessageTricked {
        pod: Which,
        up: bool,
        trick: Trick,
    },
    /// Several machines at once; the first of them may be back before the others.
    Parted {
        machine: Which,
        count: u64,
        millis: u64,
        first: u64,
        how: Silence,
    },
    /// Every machine at once, and the store's: what was not synced may be gone.
    PowerLost,
    StoreFails {
        pod: Which,
    },
    /// It does as asked, and the answer is lost.
    StoreAnswerLost {
        pod: Which,
    },
    /// Nothing more can be written.
    OutputFull {
        millis: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Silence {
    Frozen,
    CutOff,
    WithoutPower,
}

/// A fault and its time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub at: u64,
    pub fault: Fault,
}

/// Draws a plan. Half of the kinds are left out of each, so that every kind comes in many companies.
pub fn draw(chance: &mut Chance, scenario: &Scenario) -> Vec<Planned> {
    let left_in = chance.draw();
    let kinds: Vec<u64> = (0..KINDS).filter(|kind| left_in >> kind & 1 == 1 && allowed(*kind, scenario)).collect();
    let count = chance.below(24);
    let mut plan: Vec<Planned> = (0..count)
        .filter_map(|_| {
            let kind = chance.pick(&kinds)?;
            let at = chance.below(FAULTS_END);
            Some(Planned { at, fault: fault(kind, chance) })
        })
        .collect();
    if scenario.gentle {
        // The same shard may be on each of them.
        let lost = |chance: &mut Chance| Planned { at: chance.below(FAULTS_END), fault: fault(MACHINE_LOST, chance) };
        plan.extend((0..chance.below(8)).map(|_| lost(chance)));
    }
    // Ends of jobs: few of them, or nothing else would be seen.
    if chance.once_in(6) && !scenario.calm {
        let fault = Fault::Deleted { abandoned: chance.once_in(6) };
        plan.push(Planned { at: chance.below(12_000), fault });
    }
    if scenario.copies && chance.once_in(40) && !scenario.calm {
        plan.push(Planned { at: chance.below(12_000), fault: Fault::FrozenEdited });
    }
    if scenario.copies && chance.once_in(10) {
        plan.push(Planned { at: chance.below(12_000), fault: Fault::OutputFull { millis: chance.below(60_000) } });
    }
    if scenario.calm && chance.once_in(2) {
        plan.push(Planned { at: 4000 + chance.below(12_000), fault: parted(chance, scenario) });
    }
    plan.sort_by_key(|planned| planned.at);
    plan
}

const KINDS: u64 = 28;
const MACHINE_LOST: u64 = 16;
const TRICKED: u64 = 25;

/// Kinds that leave no doubt about why a worker ended.
const GENTLE: std::ops::RangeInclusive<u64> = 10..=MACHINE_LOST;

fn allowed(kind: u64, scenario: &Scenario) -> bool {
    // What a stream loses in its middle is missed for minutes, for none does that.
    (!scenario.gentle || GENTLE.contains(&kind)) && !(scenario.calm && kind == TRICKED)
}

fn fault(kind: u64, chance: &mut Chance) -> Fault {
    let which = chance.draw() >> 32;
    let pod = which;
    match kind {
        0 => Fault::OperatorKilled { which, back: chance.below(5000) },
        1 => Fault::OperatorDies { which, effects: small(chance, 12), back: chance.below(3000) },
        2 => Fault::LeaderChanged { from: which, begins: chance.below(5000), ends: chance.below(10_000) },
        3 => Fault::OperatorCutOff { which, millis: chance.below(15_000) },
        4 => Fault::OperatorBlind { which, millis: chance.below(6000) },
        5 => {
            let long = chance.once_in(3);
            Fault::ApiServerAway { millis: if long { 10_000 + chance.below(50_000) } else { chance.below(3000) } }
        }
        6 => Fault::Restored { writes: chance.below(20) },
        7..=9 => {
            let fate = chance.pick(&[Fate::Unanswered, Fate::Late, Fate::Lost]).unwrap();
            Fault::Write { which, fate }
        }
        10 => Fault::Suspended { millis: chance.below(8000) },
        11 => Fault::Scaled { parallelism: small(chance, 6) },
        12 => Fault::PodRefused { which },
        13 => Fault::Cordoned { machine: which, millis: chance.below(8000) },
        kind => harsh(kind, pod, chance),
    }
}

fn harsh(kind: u64, pod: Which, chance: &mut Chance) -> Fault {
    match kind {
        14 => Fault::Evicted { pod },
        15 => Fault::Preempted { pod },
        MACHINE_LOST => Fault::MachineLost { machine: pod, millis: 3000 + chance.below(9000) },
        17 => Fault::WorkerKilled { pod },
        18 => Fault::WorkerOutOfMemory { pod },
        19 => Fault::WorkerDies { pod, steps: small(chance, 40) },
        20 => Fault::WorkerFrozen { pod, millis: chance.below(6000) },
        21 => Fault::WorkerTerminated { pod },
        22 => {
            let how = chance.pick(&[Silence::Frozen, Silence::CutOff, Silence::WithoutPower]).unwrap();
            let long = chance.once_in(2);
            let millis = if long { 20_000 + chance.below(40_000) } else { 300 + chance.below(8000) };
            Fault::MachineSilent { machine: pod, millis, how, drained: chance.once_in(3) }
        }
        23 => Fault::StreamCut { pod },
        24 => Fault::StreamStalled { pod, millis: chance.below(4000) },
        TRICKED => {
            let late = 200 + chance.below(3000);
            let trick = chance.pick(&[Trick::Lose, Trick::Repeat, Trick::Swap, Trick::Late(late)]).unwrap();
            Fault::MessageTricked { pod, up: chance.once_in(2), trick }
        }
        26 => Fault::PowerLost,
        _ if chance.once_in(2) => Fault::StoreFails { pod },
        _ => Fault::StoreAnswerLost { pod },
    }
}

/// More than a quarter of the machines at once.
fn parted(chance: &mut Chance, scenario: &Scenario) -> Fault {
    let how = chance.pick(&[Silence::Frozen, Silence::CutOff, Silence::CutOff, Silence::WithoutPower]).unwrap();
    let count = 2 + chance.below(scenario.machines - 2);
    let millis = 8000 + chance.below(32_000);
    let first = if chance.once_in(2) { 2000 + chance.below(millis) } else { millis };
    Fault::Parted { machine: chance.draw() >> 32, count, millis, first, how }
}

fn small(chance: &mut Chance, end: u64) -> u32 {
    u32::try_from(chance.below(end)).unwrap()
}
