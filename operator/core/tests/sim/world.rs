//! The modelled world: an API server, a store, streams that delay and break, and chance that breaks things.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hyperflow_api::{
    ShardJobStatus,
    ids::{Epoch, JobUid, ShardIndex},
    message::{Checkpoint, FromOperator, FromWorker, News, Target},
};
use hyperflow_core::{
    Now,
    coordinator::{Coordinator, Effect, Event, Limits, Pod, Revision, Seen, SessionId},
    invariants,
    ranges::RangeSet,
    worker,
};

use super::{chance::Chance, node::Node};

const STEP: u64 = 10;
const FAULTS_END: u64 = 30_000;
const MUST_END: u64 = 400_000;
const LIMITS: Limits = Limits { lease_millis: 2000, orphan_seconds: 600 };

/// The output store: create-only (P5), and what was made durable in it.
#[derive(Default)]
pub struct Store {
    pub shards: u32,
    published: BTreeMap<ShardIndex, Epoch>,
    checkpoints: BTreeSet<(Target, u64, u64, u64)>,
    committed: RangeSet,
    pub visited: BTreeMap<&'static str, u64>,
}

impl Store {
    pub fn visit(&mut self, path: &'static str) {
        *self.visited.entry(path).or_default() += 1;
    }

    /// True for the first.
    pub fn publish(&mut self, index: ShardIndex, epoch: Epoch) -> bool {
        let first = !self.published.contains_key(&index);
        if first {
            self.published.insert(index, epoch);
        } else {
            self.visit("late publish found");
        }
        first
    }

    pub fn checkpoint(&mut self, target: Target, checkpoint: Checkpoint) {
        self.checkpoints.insert((target, checkpoint.number, checkpoint.position, checkpoint.digest));
    }

    pub fn is_durable(&self, target: Target, checkpoint: Checkpoint) -> bool {
        self.checkpoints.contains(&(target, checkpoint.number, checkpoint.position, checkpoint.digest))
    }

    /// A worker was told that status knows: it had better.
    pub fn cleaned(&mut self, index: ShardIndex) {
        assert!(self.committed.contains(index), "shard {index} was acknowledged before status held it (P12)");
    }
}

/// A stream: what is on its way in both directions, each with its time of arrival.
#[derive(Default)]
struct Stream {
    pod: usize,
    nonce: u64,
    to_operator: VecDeque<(u64, FromWorker)>,
    to_worker: VecDeque<(u64, FromOperator)>,
    opened: bool,
    closed: bool,
}

/// A status write on its way: `None` for the answer means that nobody will hear it.
struct Write {
    at: u64,
    revision: Revision,
    status: Box<ShardJobStatus>,
    stored: bool,
    heard: bool,
}

pub struct World {
    now: u64,
    chance: Chance,
    seen: Seen,
    store: Store,
    desk: Option<Coordinator>,
    desk_returns: u64,
    write: Option<Write>,
    nodes: Vec<Node>,
    streams: BTreeMap<u64, Stream>,
    last_stream: u64,
    pub log: u64,
    pub visited: BTreeMap<&'static str, u64>,
}

impl World {
    pub fn run(seed: u64) -> Self {
        let mut world = Self::new(seed);
        while world.now < MUST_END {
            world.step();
            if world.desk.as_ref().is_some_and(|_| hyperflow_core::status::is_terminal(&world.seen.status, 1)) {
                world.judge(seed);
                world.visited = std::mem::take(&mut world.store.visited);
                return world;
            }
        }
        panic!("seed {seed}: the job never ended; status {:?}", world.seen.status);
    }

    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let copies = chance.below(2) == 0;
        let shards = u32::try_from(1 + chance.below(60)).unwrap();
        let spec = if copies {
            serde_json::json!({
                "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
                "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": 8,
                "failurePolicy": {"maxAttempts": 10, "backoff": {"initialSeconds": 1, "maxSeconds": 4}},
                "workers": {"slots": 2, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
            })
        } else {
            serde_json::json!({
                "source": {"numbers": {"count": shards}}, "task": {"noop": {}}, "parallelism": 8,
                "failurePolicy": {"maxAttempts": 10}, "workers": {"slots": 2}
            })
        };
        let seen = Seen {
            uid: JobUid("5b1e0c44".into()),
            namespace: "n".into(),
            name: "j".into(),
            generation: 1,
            spec: serde_json::from_value(spec).unwrap(),
            status: ShardJobStatus::default(),
            deleting: false,
            abandoned: false,
        };
        let workers = 1 + chance.below(4);
        let mut world = Self {
            now: 0,
            store: Store { shards, ..Store::default() },
            desk: None,
            desk_returns: 0,
            write: None,
            nodes: Vec::new(),
            streams: BTreeMap::new(),
            last_stream: 0,
            log: seed,
            visited: BTreeMap::new(),
            chance,
            seen,
        };
        for pod in 0..workers {
            let nonce = world.chance.draw();
            let node = Node::new(world.time(), &world.seen.uid, &format!("pod-{pod}"), nonce, 2);
            world.nodes.push(node);
        }
        world
    }

    fn time(&self) -> Now {
        Now { millis: self.now, unix: 1_763_900_000 + i64::try_from(self.now / 1000).unwrap() }
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.now < FAULTS_END {
            self.break_something();
        }
        self.operator_lives();
        self.api_server_answers();
        for pod in 0..self.nodes.len() {
            self.worker_lives(pod);
        }
        self.streams_deliver();
        self.desk_handles(Event::Flush);
    }

    fn break_something(&mut self) {
        let pod = usize::try_from(self.chance.below(self.nodes.len() as u64)).unwrap();
        match self.chance.below(1500) {
            0 | 1 => {
                self.store.visit("worker killed");
                self.close_streams_of(pod);
                let (time, uid) = (self.time(), self.nodes[pod].id.pod_uid.clone());
                let nonce = self.chance.draw();
                self.nodes[pod] = Node::new(time, &self.seen.uid, &uid, nonce, 2);
                self.nodes[pod].frozen_until = self.now + 500;
            }
            2 => {
                self.store.visit("worker frozen");
                self.nodes[pod].frozen_until = self.now + self.chance.below(6000);
            }
            3 | 4 => {
                self.store.visit("stream cut");
                self.close_streams_of(pod);
            }
            5 => {
                self.store.visit("operator killed");
                self.desk = None;
                self.desk_returns = self.now + self.chance.below(5000);
                // Whatever the dead one was writing may still arrive; nobody hears the answer.
                if let Some(write) = &mut self.write {
                    write.heard = false;
                }
                let streams: Vec<u64> = self.streams.keys().copied().collect();
                streams.into_iter().for_each(|id| self.close(id));
            }
            6 if self.nodes.len() > 1 => {
                let effects = self.node_handles(pod, worker::Event::Terminate);
                self.say(pod, effects);
            }
            _ => {}
        }
    }

    fn operator_lives(&mut self) {
        if self.desk.is_none() && self.now >= self.desk_returns && self.write.is_none() {
            let random = self.chance.draw();
            let desk = Coordinator::take_over(self.time(), &self.seen, random, 0, LIMITS).unwrap();
            self.desk = Some(desk);
        }
        let node = |node: &Node| Pod {
            name: node.id.pod_uid.clone(),
            uid: node.id.pod_uid.clone(),
            node: Some("node-1".into()),
            leaving: false,
            trouble: None,
            disruption: None,
            restarts: 0,
            ended: None,
        };
        let pods = self.nodes.iter().map(node).collect();
        self.desk_handles(Event::PodsSeen(pods));
    }

    /// Status writes arrive after a while; some are refused, some arrive and nobody hears of it until read back (P13).
    fn api_server_answers(&mut self) {
        let Some(write) = self.write.take_if(|write| self.now >= write.at) else { return };
        if write.stored {
            let before: RangeSet = self.done_in(&self.seen.status);
            let after: RangeSet = self.done_in(&write.status);
            assert!(before.iter().all(|index| after.contains(index)), "status forgot a shard");
            let published = |index: &ShardIndex| self.store.published.contains_key(index);
            assert!(after.iter().all(|index| published(&index)), "status leads the store (P5)");
            self.store.committed = after;
            self.seen.status = *write.status;
        }
        if write.heard {
            let event =
                if write.stored { Event::StatusStored(write.revision) } else { Event::StatusRefused(write.revision) };
            self.desk_handles(event);
        }
    }

    fn done_in(&self, status: &ShardJobStatus) -> RangeSet {
        status.shards.as_ref().map_or("", |shards| &shards.completed_indexes).parse().unwrap()
    }

    fn worker_lives(&mut self, pod: usize) {
        if self.now < self.nodes[pod].frozen_until {
            return;
        }
        if self.nodes[pod].exited {
            let (time, uid) = (self.time(), self.nodes[pod].id.pod_uid.clone());
            self.close_streams_of(pod);
            let nonce = self.chance.draw();
            self.nodes[pod] = Node::new(time, &self.seen.uid, &uid, nonce, 2);
        }
        let lost = self.nodes[pod].session.is_some_and(|id| self.streams.get(&id).is_none_or(|stream| stream.closed));
        if lost {
            self.nodes[pod].session = None;
            let says = self.node_handles(pod, worker::Event::Disconnected);
            self.say(pod, says);
        }
        if self.nodes[pod].session.is_none() && self.desk.is_some() && self.chance.once_in(10) {
            self.last_stream += 1;
            let stream = Stream { pod, nonce: self.nodes[pod].id.nonce, ..Stream::default() };
            self.streams.insert(self.last_stream, stream);
            self.nodes[pod].session = Some(self.last_stream);
            let says = self.node_handles(pod, worker::Event::Connected);
            self.say(pod, says);
        }
        self.deliver_to_worker(pod);
        for event in self.nodes[pod].work(STEP, &mut self.store) {
            let says = self.node_handles(pod, event);
            self.say(pod, says);
        }
        let says = self.node_handles(pod, worker::Event::Flush);
        self.say(pod, says);
    }

    fn deliver_to_worker(&mut self, pod: usize) {
        let Some(id) = self.nodes[pod].session else { return };
        while let Some(stream) = self.streams.get_mut(&id)
            && let Some((_, message)) = stream.to_worker.pop_front_if(|(at, _)| *at <= self.now)
        {
            if let FromOperator::Orders(orders) = &message {
                if orders.grants.iter().any(|grant| grant.replaces.is_some()) {
                    self.store.visit("lease re-issued");
                }
                if !orders.revoked.is_empty() {
                    self.store.visit("revoked");
                }
            }
            let says = self.node_handles(pod, worker::Event::Heard(message));
            self.say(pod, says);
        }
    }

    fn node_handles(&mut self, pod: usize, event: worker::Event) -> Vec<FromWorker> {
        let time = self.time();
        self.nodes[pod].handle(time, event, &mut self.chance, &mut self.store)
    }

    fn say(&mut self, pod: usize, says: Vec<FromWorker>) {
        for message in says {
            let Some(stream) = self.nodes[pod].session.and_then(|id| self.streams.get_mut(&id)) else { continue };
            if let FromWorker::Report(report) = &message
                && report.facts.iter().any(|fact| fact.news == News::Released)
            {
                self.store.visited.entry("handed back").and_modify(|times| *times += 1).or_insert(1);
            }
            let at = stream.to_operator.back().map_or(0, |(at, _)| *at).max(self.now + self.chance.below(40));
            stream.to_operator.push_back((at, message));
        }
    }

    fn streams_deliver(&mut self) {
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            while let Some(stream) = self.streams.get_mut(&id)
                && let Some((_, message)) = stream.to_operator.pop_front_if(|(at, _)| *at <= self.now)
            {
                let session = SessionId(id);
                match message {
                    FromWorker::Hello(hello) => {
                        stream.opened = true;
                        self.desk_handles(Event::SessionOpened { session, hello });
                    }
                    FromWorker::Report(report) => self.desk_handles(Event::Reported { session, report }),
                }
            }
            let over = self.streams.get(&id).is_some_and(|stream| stream.closed && stream.to_operator.is_empty());
            if over {
                self.streams.remove(&id);
                self.desk_handles(Event::SessionClosed(SessionId(id)));
            }
        }
    }

    fn close_streams_of(&mut self, pod: usize) {
        let ids: Vec<u64> = self.streams.iter().filter(|(_, stream)| stream.pod == pod).map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.close(id));
    }

    /// What was said before may still arrive at the operator; nothing more arrives at the worker.
    fn close(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.closed = true;
            stream.to_worker.clear();
            if !stream.opened || self.chance.once_in(2) {
                stream.to_operator.clear();
            }
        }
    }

    fn desk_handles(&mut self, event: Event) {
        let time = self.time();
        let Some(desk) = &mut self.desk else { return };
        let before = desk.shards().clone();
        let effects = desk.handle(time, event);
        if before.total() > 0 {
            invariants::done_stays_done(&before, desk.shards()).unwrap();
        }
        for effect in effects {
            match effect {
                Effect::Send { session, message } => {
                    let Some(stream) = self.streams.get_mut(&session.0).filter(|stream| !stream.closed) else {
                        continue;
                    };
                    self.log = self.log.rotate_left(5) ^ self.now ^ session.0 ^ stream.nonce;
                    let at = stream.to_worker.back().map_or(0, |(at, _)| *at).max(self.now + self.chance.below(40));
                    stream.to_worker.push_back((at, message));
                }
                Effect::Close { session, .. } => self.close(session.0),
                Effect::StoreStatus { revision, status } => {
                    assert!(self.write.is_none(), "two status writes at a time");
                    let broken = self.now < FAULTS_END;
                    let stored = !(broken && self.chance.once_in(20));
                    if !stored {
                        self.store.visited.entry("write refused").and_modify(|times| *times += 1).or_insert(1);
                    }
                    // An ambiguous write is read back before anything is repeated (P13): to the core it is slow.
                    let lost = broken && self.chance.once_in(20);
                    if lost {
                        self.store.visited.entry("write lost").and_modify(|times| *times += 1).or_insert(1);
                    }
                    let at = self.now + self.chance.below(80) + if lost { 3000 } else { 0 };
                    self.write = Some(Write { at, revision, status, stored, heard: true });
                }
                Effect::Announce(_) | Effect::LookAtPool | Effect::Release => {}
            }
        }
    }

    fn judge(&mut self, seed: u64) {
        let status = &self.seen.status;
        let complete =
            status.conditions.iter().any(|condition| condition.type_ == "Complete" && condition.status == "True");
        assert!(complete, "seed {seed}: the job did not complete: {:?}", status.conditions);
        let shards = status.shards.as_ref().unwrap();
        assert_eq!(shards.succeeded, shards.total, "seed {seed}");
        assert_eq!(self.store.published.len(), usize::try_from(shards.total).unwrap(), "seed {seed}");
    }
}
