//! The modelled world: its clock, and whose turn it is.

use std::collections::BTreeMap;

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{Now, status};

use super::{
    api::Api,
    chance::Chance,
    operators::Operator,
    pods::{Machine, Pod},
    scenario::Scenario,
    store::Store,
    streams::Stream,
};

pub const STEP: u64 = 10;
const FAULTS_END: u64 = 30_000;
const MUST_END: u64 = 400_000;

pub struct World {
    pub seed: u64,
    pub now: u64,
    pub chance: Chance,
    pub scenario: Scenario,
    pub api: Api,
    pub store: Store,
    pub operators: Vec<Operator>,
    pub last_desk: u64,
    pub machines: Vec<Machine>,
    pub pods: BTreeMap<u64, Pod>,
    pub last_pod: u64,
    pub streams: BTreeMap<u64, Stream>,
    pub last_stream: u64,
    pub resume_at: Option<u64>,
    /// How often each shard ran in a worker when that was lost or seemed to be.
    pub deaths: BTreeMap<ShardIndex, u32>,
    /// Since when a worker has been idle beside a due shard: by desk, pod and nonce.
    pub idle: BTreeMap<(u64, u64, u64), u64>,
    /// What desks hear and say is printed: `TRACE=1`.
    pub traced: bool,
    /// Differs if anything was said differently.
    pub log: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} at {} ms", self.seed, self.now);
        }
    }
}

impl World {
    pub fn run(seed: u64) -> Self {
        let mut world = Self::new(seed);
        while world.now < MUST_END {
            world.step();
            if world.api.gone {
                return world;
            }
            if status::is_terminal(&world.api.seen.status, 1) && world.pods.is_empty() {
                world.judge();
                return world;
            }
        }
        panic!("the job never ended; status {:?}", world.api.seen.status);
    }

    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let (scenario, seen) = Scenario::draw(&mut chance);
        let machine = |number| Machine { name: format!("node-{number}"), ..Machine::default() };
        let machines = (0..2 + chance.below(2)).map(machine).collect();
        Self {
            seed,
            now: 0,
            store: Store::new(scenario.shards),
            api: Api::new(seen),
            operators: vec![Operator::leader(), Operator::default()],
            last_desk: 0,
            machines,
            pods: BTreeMap::new(),
            last_pod: 0,
            streams: BTreeMap::new(),
            last_stream: 0,
            resume_at: None,
            deaths: BTreeMap::new(),
            idle: BTreeMap::new(),
            traced: std::env::var("TRACE").is_ok(),
            log: seed,
            chance,
            scenario,
        }
    }

    pub fn time(&self) -> Now {
        Now { millis: self.now, unix: 1_763_900_000 + i64::try_from(self.now / 1000).unwrap() }
    }

    pub fn faults_last(&self) -> bool {
        self.now < FAULTS_END
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.faults_last() {
            self.something_happens();
            if !self.scenario.gentle {
                self.something_breaks();
            }
        }
        self.users_act();
        self.api.late_writes_arrive(self.now, &mut self.store);
        self.pods_act();
        self.streams_deliver();
        self.operators_act();
        self.nobody_waits_in_vain();
    }
}
