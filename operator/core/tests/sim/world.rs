//! The modelled world: what there is, the order in which things happen, and whose turn it is.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use hyperflow_api::{ShardJobStatus, ids::ShardIndex};
use hyperflow_core::{coordinator::Seen, invariants::Hardship, status, worker::RunId};

use super::{
    api::Api,
    calm::Calm,
    chance::Chance,
    clock::Clock,
    disks::Disks,
    faults::Fault,
    log::Log,
    operators::Operator,
    pods::{Machine, Pod},
    scenario::Scenario,
    store::Store,
    story::Run,
    streams::Stream,
    tally::Tally,
};

/// A job that has not ended by then never will.
const MUST_END: u64 = 600_000;

/// How often somebody looks whether anybody waits in vain.
const WATCH: u64 = 100;

/// Something that is to happen.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    Fault(Fault),
    User(Fault),
    Resumed,
    RunAgain,
    ScaledBack,
    NodesChanged,
    Watch,
    OperatorMinds(usize),
    OperatorLooks(usize),
    DeskWakes { place: usize, desk: u64 },
    LedgerActs { place: usize, desk: u64 },
    LateWrite(usize),
    Bind(u64),
    KubeletStarts(u64),
    KubeletEnds(u64),
    KubeletTells(u64, &'static str),
    Disrupt(u64, &'static str),
    PodGone(u64),
    Connect { pod: u64, nonce: u64 },
    GiveUpGreeting { pod: u64, nonce: u64, stream: u64 },
    Disconnected { pod: u64, nonce: u64, stream: u64 },
    WorkerWakes { pod: u64, nonce: u64 },
    Work { pod: u64, nonce: u64, run: RunId },
    Loaded { pod: u64, nonce: u64, number: u64 },
    LooksThrough { pod: u64, nonce: u64 },
    Exit { pod: u64, nonce: u64 },
    ToOperator(u64),
    ToWorker(u64),
    StallNoticed(u64),
    StreamEnds(u64),
}

impl Turn {
    /// The process that must not be frozen for it.
    fn of_process(self) -> Option<(u64, u64)> {
        match self {
            Self::Connect { pod, nonce }
            | Self::GiveUpGreeting { pod, nonce, .. }
            | Self::Disconnected { pod, nonce, .. }
            | Self::WorkerWakes { pod, nonce }
            | Self::Work { pod, nonce, .. }
            | Self::Loaded { pod, nonce, .. }
            | Self::LooksThrough { pod, nonce }
            | Self::Exit { pod, nonce } => Some((pod, nonce)),
            _ => None,
        }
    }
}

/// In the order of time, and of being asked for.
struct Entry {
    at: u64,
    number: u64,
    turn: Turn,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct World {
    pub now: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    asked: u64,
    pub chance: Chance,
    pub scenario: Scenario,
    pub api: Api,
    pub store: Store,
    pub disks: Disks,
    pub calm: Calm,
    pub operators: Vec<Operator>,
    pub last_desk: u64,
    /// Writes that nobody waits for any more.
    pub late: Vec<(u64, Box<ShardJobStatus>)>,
    pub machines: Vec<Machine>,
    pub pods: BTreeMap<u64, Pod>,
    pub last_pod: u64,
    pub streams: BTreeMap<u64, Stream>,
    pub last_stream: u64,
    /// A user changed what a stored plan freezes, by this generation.
    pub spec_changed: Option<i64>,
    /// Somebody said that temporary files were left.
    pub sweep_failed: bool,
    /// The output has no room until then.
    pub full_until: u64,
    /// What befell each shard.
    pub hardship: BTreeMap<ShardIndex, Hardship>,
    /// Shards of which an attempt ended so that a rule gives them up.
    pub given_up: BTreeSet<ShardIndex>,
    /// Another run was asked for so often.
    pub reruns: u32,
    /// Since when a worker has been idle beside a due shard: by desk, pod and nonce.
    pub idle: BTreeMap<(u64, u64, u64), u64>,
    pub log: Log,
    pub tally: Tally,
}

impl World {
    /// Plays a run to its end.
    pub fn play(run: &Run, traced: bool) -> Self {
        let mut world = Self::new(run, traced);
        while world.now < MUST_END {
            world.step();
            if world.api.gone {
                return world;
            }
            let Seen { spec, status, .. } = &world.api.seen;
            if status::has_ended(spec, status, 1) && world.pods.is_empty() {
                world.judge();
                if !std::mem::take(&mut world.scenario.rerun_at_end) {
                    return world;
                }
                world.visit("run again after the end");
                world.run_again();
            }
        }
        let desks = world.operators.iter().filter_map(|operator| operator.desk.as_ref());
        let wait: Vec<_> = desks.map(|desk| (desk.core.not_now(), desk.core.shards())).collect();
        panic!("L1 every job ends: it never did; {:?}; the desks {wait:?}", world.calm);
    }

    fn new(run: &Run, traced: bool) -> Self {
        let mut chance = Chance(run.seed ^ 0x5eed);
        let machine = |number| Machine { name: format!("node-{number}"), ..Machine::default() };
        let operators =
            vec![Operator::new(Clock::draw(&mut chance), u64::MAX), Operator::new(Clock::draw(&mut chance), 0)];
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            asked: 0,
            store: Store::default(),
            disks: Disks::new(run.seed),
            calm: Calm::default(),
            api: Api::new(run.scenario.seen()),
            operators,
            last_desk: 0,
            late: Vec::new(),
            machines: (0..run.scenario.machines).map(machine).collect(),
            pods: BTreeMap::new(),
            last_pod: 0,
            streams: BTreeMap::new(),
            last_stream: 0,
            spec_changed: None,
            sweep_failed: false,
            full_until: 0,
            hardship: BTreeMap::new(),
            given_up: BTreeSet::new(),
            reruns: 0,
            idle: BTreeMap::new(),
            log: Log::new(run.seed, traced),
            tally: Tally::default(),
            chance,
            scenario: run.scenario.clone(),
        };
        for planned in &run.faults {
            world.at(planned.at, Turn::Fault(planned.fault));
        }
        if let Some(at) = world.scenario.rerun_at {
            world.at(at, Turn::RunAgain);
        }
        (0..world.operators.len()).for_each(|place| world.after(1, Turn::OperatorMinds(place)));
        world.after(WATCH, Turn::Watch);
        world
    }

    pub fn at(&mut self, at: u64, turn: Turn) {
        self.asked += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), number: self.asked, turn }));
    }

    pub fn after(&mut self, millis: u64, turn: Turn) {
        self.at(self.now + millis, turn);
    }

    pub fn visit(&mut self, path: &'static str) {
        self.tally.visit(path);
        self.log.tell(self.now, || format!("== {path}"));
    }

    fn step(&mut self) {
        let Some(Reverse(Entry { at, turn, .. })) = self.queue.pop() else { panic!("nothing is left to happen") };
        self.now = at;
        if let Some(until) = self.frozen_until(turn) {
            return self.at(until, turn);
        }
        self.tally.events += 1;
        self.take(turn);
    }

    /// A frozen process does nothing, and what comes for it waits. When it thaws it hears that before it looks at its
    /// clock, as the shell of a worker does.
    fn frozen_until(&mut self, turn: Turn) -> Option<u64> {
        let of_stream = |id: u64| self.streams.get(&id).map(|stream| (stream.pod, stream.nonce));
        let of_process = turn.of_process();
        let whose = if let Turn::ToWorker(id) = turn { of_stream(id) } else { of_process };
        let (pod, nonce) = whose?;
        let now = self.now;
        let until = self.process(pod, nonce).map(|process| process.frozen_until).filter(|until| *until > now);
        until.map(|until| until + u64::from(of_process.is_some()))
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Fault(fault) => {
                self.tally.fault(fault);
                self.log.tell(self.now, || format!("** {fault:?}"));
                self.comes_to_pass(fault);
            }
            Turn::User(fault) => self.user_acts(fault),
            Turn::Resumed => self.resumed(),
            Turn::RunAgain => self.run_again(),
            Turn::ScaledBack => self.scaled_back(),
            Turn::NodesChanged => self.changed(),
            Turn::Watch => {
                self.nobody_waits_in_vain();
                self.watch_copies();
                self.after(WATCH, Turn::Watch);
            }
            Turn::OperatorMinds(place) => self.operator_minds(place),
            Turn::OperatorLooks(place) => self.operator_looks(place),
            Turn::DeskWakes { place, desk } => self.desk_wakes(place, desk),
            Turn::LedgerActs { place, desk } => self.ledger_acts(place, desk),
            Turn::LateWrite(number) => self.late_write_arrives(number),
            turn => self.take_of_pod(turn),
        }
    }

    fn take_of_pod(&mut self, turn: Turn) {
        match turn {
            Turn::Bind(pod) => self.bind(pod),
            Turn::KubeletStarts(pod) => self.kubelet_starts(pod),
            Turn::KubeletEnds(pod) => self.kubelet_ends(pod),
            Turn::KubeletTells(pod, word) => self.kubelet_tells(pod, word),
            Turn::Disrupt(pod, word) => self.disrupt(pod, word),
            Turn::PodGone(pod) => self.pod_gone(pod),
            Turn::Connect { pod, nonce } => self.connect(pod, nonce),
            Turn::GiveUpGreeting { pod, nonce, stream } => self.greeting_is_over(pod, nonce, stream),
            Turn::Disconnected { pod, nonce, stream } => self.disconnected(pod, nonce, stream),
            Turn::WorkerWakes { pod, nonce } => self.worker_wakes(pod, nonce),
            Turn::Work { pod, nonce, run } => self.work(pod, nonce, run),
            Turn::Loaded { pod, nonce, number } => self.loaded(pod, nonce, number),
            Turn::LooksThrough { pod, nonce } => self.looks_through(pod, nonce),
            Turn::Exit { pod, nonce } if self.process(pod, nonce).is_some() => {
                self.process_ends(pod, "Completed", true);
            }
            Turn::ToOperator(id) => self.arrives_at_operator(id),
            Turn::ToWorker(id) => self.arrives_at_worker(id),
            Turn::StallNoticed(id) => self.close(id, true),
            Turn::StreamEnds(id) => self.stream_ends(id),
            _ => {}
        }
    }

    fn worker_wakes(&mut self, pod: u64, nonce: u64) {
        let now = self.now;
        if self.process(pod, nonce).is_some_and(|process| process.wakes_at <= now) {
            self.process_hears(pod, nonce, None);
        }
    }
}
