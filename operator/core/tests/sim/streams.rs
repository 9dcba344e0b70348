//! Streams between workers and desks: they delay and break, and sometimes do worse than any stream should: lose, repeat
//! or swap messages in the middle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hyperflow_api::{
    ids::{Epoch, ShardIndex},
    message::{FromOperator, FromWorker, News, Orders, Target},
};
use hyperflow_core::{
    coordinator::{Event, SessionId},
    worker,
};
use serde::{Deserialize, Serialize};

use super::world::{Turn, World};

/// What a stream does to the next message in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trick {
    Lose,
    Repeat,
    /// With the one after it.
    Swap,
    /// This one and all after it come so much later.
    Late(u64),
}

/// Most milliseconds that a message takes, if nothing is wrong.
const LATENCY: u64 = 40;

/// One direction: messages on their way, in order.
pub struct Lane<M> {
    messages: VecDeque<M>,
    /// When the last of them arrives.
    last: u64,
    trick: Option<Trick>,
    swapped: Option<M>,
}

impl<M: Clone> Lane<M> {
    fn new() -> Self {
        Self { messages: VecDeque::new(), last: 0, trick: None, swapped: None }
    }

    /// Puts a message on its way; returns when each copy of it arrives.
    fn send(&mut self, now: u64, latency: u64, message: M) -> Vec<u64> {
        let mut sent = vec![message];
        let mut late = 0;
        match self.trick.take() {
            Some(Trick::Lose) => sent.clear(),
            Some(Trick::Repeat) => sent.push(sent[0].clone()),
            Some(Trick::Swap) => {
                self.swapped = sent.pop();
                return Vec::new();
            }
            Some(Trick::Late(millis)) => late = millis,
            None => {}
        }
        sent.extend(self.swapped.take());
        let arrive = |message| {
            self.messages.push_back(message);
            self.last = self.last.max(now + latency + late);
            self.last
        };
        sent.into_iter().map(arrive).collect()
    }
}

pub struct Stream {
    pub pod: u64,
    pub nonce: u64,
    pub operator: usize,
    pub desk: u64,
    up: Lane<FromWorker>,
    down: Lane<FromOperator>,
    opened: bool,
    pub closed: bool,
    /// Shards that the operator gave by it and has heard no end of.
    pub given: BTreeSet<ShardIndex>,
    /// Leases that the operator gave by it, neither ended nor taken away.
    live: BTreeMap<ShardIndex, Epoch>,
    /// Nothing passes, and nobody has noticed yet.
    stalled: bool,
}

impl Stream {
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub fn given_under(&mut self, index: ShardIndex, epoch: Epoch) {
        self.live.insert(index, epoch);
    }

    pub fn ended(&mut self, index: ShardIndex, epoch: Epoch) {
        if self.live.get(&index) == Some(&epoch) {
            self.live.remove(&index);
        }
    }

    pub fn has(&self, index: ShardIndex) -> bool {
        self.live.contains_key(&index)
    }

    pub fn find(&self, is: impl Fn(ShardIndex) -> bool) -> Option<ShardIndex> {
        self.live.keys().copied().find(|index| is(*index))
    }

    /// Something was said that has been on its way for longer than it should be.
    pub fn is_late(&self, now: u64) -> bool {
        self.up.last.max(self.down.last) > now + LATENCY
    }
}

fn shard(target: Target) -> Option<ShardIndex> {
    match target {
        Target::Shard(index) => Some(index),
        Target::Plan | Target::Finally | Target::Sweep => None,
    }
}

impl World {
    /// A worker without a session looks for an operator.
    pub fn connect(&mut self, pod: u64, nonce: u64) {
        let (now, open) = (self.now, self.open_desks());
        let Some(process) = self.process(pod, nonce).filter(|process| process.session.is_none()) else { return };
        let cut_off = now < process.cut_off_until;
        let Some(operator) = self.chance.pick(&open).filter(|_| !cut_off) else {
            let wait = 50 + self.chance.below(200);
            return self.after(wait, Turn::Connect { pod, nonce });
        };
        let Some(desk) = self.operators[operator].desk.as_ref().map(|desk| desk.number) else { return };
        self.last_stream += 1;
        let id = self.last_stream;
        let (up, down) = (Lane::new(), Lane::new());
        let stream = Stream {
            pod,
            nonce,
            operator,
            desk,
            up,
            down,
            opened: false,
            closed: false,
            given: BTreeSet::new(),
            live: BTreeMap::new(),
            stalled: false,
        };
        self.streams.insert(id, stream);
        self.connected(pod, nonce, id);
    }

    pub fn send_to_operator(&mut self, id: u64, message: FromWorker) {
        let latency = self.chance.below(LATENCY);
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.closed) else { return };
        if let FromWorker::Report(report) = &message
            && report.facts.iter().any(|fact| fact.news == News::Released)
        {
            self.tally.visit("handed back");
        }
        let trick = stream.up.trick.filter(|_| matches!(message, FromWorker::Hello(_)));
        stream.up.trick = stream.up.trick.filter(|_| trick.is_none());
        for at in stream.up.send(now, latency, message) {
            self.at(at, Turn::ToOperator(id));
        }
    }

    pub fn send_to_worker(&mut self, session: SessionId, message: FromOperator) {
        let latency = self.chance.below(LATENCY);
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&session.0) else { return };
        if let FromOperator::Orders(orders) = &message {
            for index in orders.grants.iter().filter_map(|grant| shard(grant.target)) {
                stream.given.insert(index);
                // Nobody will ever begin it, but that is more than the operator can know.
                self.hardship.entry(index).or_default().deaths += u32::from(stream.closed);
            }
        }
        if stream.closed {
            return;
        }
        // A stream that forgets its first message is none; the plan is told once.
        let needed = match &message {
            FromOperator::Welcome(_) => true,
            FromOperator::Orders(orders) => orders.plan.is_some(),
        };
        let trick = stream.down.trick.filter(|trick| needed && !matches!(trick, Trick::Late(_)));
        stream.down.trick = stream.down.trick.filter(|_| trick.is_none());
        for at in stream.down.send(now, latency, message) {
            self.at(at, Turn::ToWorker(session.0));
        }
        if let (Some(trick), Some(stream)) = (trick, self.streams.get_mut(&session.0)) {
            stream.down.trick = Some(trick);
        }
    }

    pub fn arrives_at_worker(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.closed && !stream.stalled) else { return };
        let (pod, nonce) = (stream.pod, stream.nonce);
        let Some(message) = stream.down.messages.pop_front() else { return };
        if let FromOperator::Orders(Orders { grants, revoked, .. }) = &message {
            // Of a shard that may have two attempts either may have been given anew.
            if grants.iter().any(|grant| grant.replaces.is_some()) && !self.scenario.speculation {
                self.visit("lease re-issued");
            }
            if !revoked.is_empty() {
                self.visit("revoked");
            }
        }
        self.log.note(self.now, &message);
        self.process_hears(pod, nonce, Some(worker::Event::Heard(message)));
    }

    pub fn arrives_at_operator(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.stalled) else { return };
        let (operator, desk, session) = (stream.operator, stream.desk, SessionId(id));
        let Some(message) = stream.up.messages.pop_front() else { return };
        self.log.note(self.now, &message);
        let event = match message {
            FromWorker::Hello(hello) => {
                stream.opened = true;
                Event::SessionOpened { session, hello }
            }
            FromWorker::Report(report) => {
                let pod = stream.pod;
                if report.holdings.is_some() {
                    self.note_holdings(desk, pod, &report);
                }
                let Some(stream) = self.streams.get_mut(&id) else { return };
                let over = report.facts.iter().filter(|fact| !matches!(fact.news, News::Checkpointed(_)));
                over.filter_map(|fact| Some((shard(fact.target)?, fact.epoch))).for_each(|(index, epoch)| {
                    stream.given.remove(&index);
                    stream.ended(index, epoch);
                });
                Event::Reported { session, report }
            }
        };
        self.tell_desk(operator, desk, event);
    }

    fn tell_desk(&mut self, operator: usize, desk: u64, event: Event) {
        if self.operators[operator].desk.as_ref().is_some_and(|open| open.number == desk) {
            self.desk_hears(operator, vec![event]);
        }
    }

    pub fn streams_of(&self, pod: u64) -> Vec<u64> {
        self.streams.iter().filter(|(_, stream)| stream.pod == pod).map(|(&id, _)| id).collect()
    }

    /// Both ends notice in their own time. What the worker had said may still arrive before that.
    pub fn close(&mut self, id: u64, blamed: bool) {
        let (lost, soon, sooner) = (self.chance.once_in(2), self.chance.below(30), self.chance.below(30));
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.closed) else { return };
        stream.closed = true;
        stream.down.messages.clear();
        if !stream.opened || lost || stream.stalled {
            stream.up.messages.clear();
        }
        let (pod, nonce) = (stream.pod, stream.nonce);
        let arrived = stream.up.last.max(now);
        self.at(arrived + soon, Turn::StreamEnds(id));
        self.at(now + sooner, Turn::Disconnected { pod, nonce, stream: id });
        if blamed {
            self.blame(pod);
        }
    }

    pub fn stream_ends(&mut self, id: u64) {
        if let Some(stream) = self.streams.remove(&id) {
            self.tell_desk(stream.operator, stream.desk, Event::SessionClosed(SessionId(id)));
        }
    }

    /// The wire is dead and nobody knows yet.
    pub fn stall(&mut self, id: u64, millis: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stalled = true;
            self.after(millis, Turn::StallNoticed(id));
        }
    }

    pub fn play_trick(&mut self, pod: u64, up: bool, trick: Trick) -> bool {
        let Some(id) = self.streams_of(pod).pop() else { return false };
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.closed) else { return false };
        let lane = if up { &mut stream.up.trick } else { &mut stream.down.trick };
        *lane = Some(trick);
        true
    }
}
