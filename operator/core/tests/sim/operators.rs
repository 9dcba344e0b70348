//! The operator's processes: who leads, their desks, and what a desk does with what the core says.

use hyperflow_api::message::{FromOperator, Orders, Target};
use hyperflow_core::{
    coordinator::{Coordinator, Effect, Event, Revision},
    invariants,
};

use super::{
    ledger::{Fate, Ledger, Outcome},
    world::World,
};

/// The pause before a desk that ended early is opened again: doubled up to the last.
const FIRST_PAUSE: u64 = 200;
const LAST_PAUSE: u64 = 30_000;
const SOUND: u64 = 60_000;

/// A process. Nobody knows better than itself that it does not lead any more.
#[derive(Default)]
pub struct Operator {
    pub leads_from: u64,
    pub leads_until: u64,
    pub desk: Option<Desk>,
    pub rests_until: u64,
    failures: u32,
    heard: u64,
}

pub struct Desk {
    pub number: u64,
    pub core: Coordinator,
    pub ledger: Ledger,
    pub since: u64,
    looks_at: u64,
    /// Machines that take no leases, as it was told.
    pub unfit: Vec<usize>,
    /// What it was told of the job, and since when.
    pub suspended: bool,
    pub deleting: Option<u64>,
    pub released: bool,
}

impl Operator {
    /// Leads from the beginning and for ever, unless something happens.
    pub fn leader() -> Self {
        Self { leads_until: u64::MAX, ..Self::default() }
    }

    pub fn leads(&self, now: u64) -> bool {
        (self.leads_from..self.leads_until).contains(&now)
    }
}

impl World {
    pub fn operators_act(&mut self) {
        let open = |world: &Self| world.operators.iter().filter(|operator| operator.desk.is_some()).count();
        for operator in 0..self.operators.len() {
            if !self.operators[operator].leads(self.now) || self.api.gone {
                self.end_desk(operator, None);
            }
            self.open_desk(operator);
            self.ledger_acts(operator);
            // What was decided is said before the desk hears that the job is to stop.
            self.desk_handles(operator, Event::Flush);
            self.look(operator);
            self.desk_handles(operator, Event::Flush);
            self.let_go(operator);
        }
        if open(self) > 1 {
            self.store.visit("two desks at a time");
        }
    }

    fn open_desk(&mut self, number: usize) {
        let operator = &mut self.operators[number];
        let idle = operator.desk.is_none() && operator.leads(self.now) && self.now >= operator.rests_until;
        if !idle || self.api.is_away(self.now) || self.api.gone || !self.chance.once_in(5) {
            return;
        }
        if hyperflow_core::status::is_terminal(&self.api.seen.status, 1) && self.pods.is_empty() {
            return;
        }
        let random = self.chance.draw();
        let (time, heard) = (self.time(), std::mem::take(&mut self.operators[number].heard));
        let core = Coordinator::take_over(time, &self.api.seen, random, heard, self.scenario.limits).unwrap();
        self.last_desk += 1;
        self.operators[number].desk = Some(Desk {
            number: self.last_desk,
            ledger: Ledger::new(&self.api, core.takeover()),
            core,
            since: self.now,
            looks_at: self.now,
            unfit: Vec::new(),
            suspended: self.api.seen.spec.suspend,
            deleting: self.api.seen.deleting.then_some(self.now),
            released: false,
        });
    }

    /// `early` is for a desk that ended before its job was over: the term that is to be outdone, or 0.
    pub fn end_desk(&mut self, number: usize, early: Option<u64>) {
        let operator = &mut self.operators[number];
        let Some(desk) = operator.desk.take() else { return };
        desk.ledger.abandon(self.now, &mut self.api);
        if let Some(heard) = early {
            let failures = if self.now >= desk.since + SOUND { 0 } else { operator.failures };
            operator.rests_until = self.now + LAST_PAUSE.min(FIRST_PAUSE << failures.min(10));
            operator.failures = failures + 1;
            operator.heard = heard;
        } else {
            operator.failures = 0;
        }
        let of_desk = |stream: &super::streams::Stream| stream.desk == desk.number;
        let ids: Vec<u64> = self.streams.iter().filter(|(_, stream)| of_desk(stream)).map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.close(id));
    }

    fn ledger_acts(&mut self, operator: usize) {
        let Some(desk) = &mut self.operators[operator].desk else { return };
        match desk.ledger.act(self.now, &mut self.api, &mut self.chance, &mut self.store) {
            Some(Outcome::Stored(revision)) => self.desk_handles(operator, Event::StatusStored(revision)),
            Some(Outcome::Refused(revision)) => self.desk_handles(operator, Event::StatusRefused(revision)),
            Some(Outcome::Superseded) => {
                self.store.visit("superseded");
                self.end_desk(operator, Some(0));
            }
            None => {}
        }
    }

    /// Reconciliation: the desk is told what is there, and what it wants is done.
    fn look(&mut self, operator: usize) {
        let again = self.chance.once_in(20);
        let Some(desk) = &mut self.operators[operator].desk else { return };
        if self.api.is_away(self.now) || !(again || self.now >= desk.looks_at) {
            return;
        }
        desk.looks_at = u64::MAX;
        desk.suspended = self.api.seen.spec.suspend;
        let unfit = |machine: &usize| self.scenario.nodes_known && !self.machines[*machine].is_fit(self.now);
        desk.unfit = (0..self.machines.len()).filter(unfit).collect();
        if self.api.seen.deleting {
            desk.deleting.get_or_insert(self.now);
        }
        self.desk_handles(operator, Event::JobSeen(Box::new(self.api.seen.clone())));
        if self.scenario.nodes_known {
            self.desk_handles(operator, Event::NodesSeen(self.nodes_seen()));
        }
        self.desk_handles(operator, Event::PodsSeen(self.pods_seen()));
        let time = self.time();
        let Some(desk) = &mut self.operators[operator].desk else { return };
        let wanted = desk.core.wanted_pods(time);
        assert!(wanted.create.is_empty() || desk.deleting.is_none(), "a pod for a deleted job: {wanted:?}");
        for (name, uid) in wanted.delete {
            self.store.visit("pod deleted");
            self.delete_pod(&name, &uid);
        }
        for name in wanted.create {
            self.create_pod(&name);
        }
    }

    pub fn desk_handles(&mut self, operator: usize, event: Event) {
        let time = self.time();
        let Some(desk) = &mut self.operators[operator].desk else { return };
        let before = desk.core.shards().clone();
        let told = self.traced.then(|| format!("{event:?}"));
        let effects = desk.core.handle(time, event);
        if before.total() > 0 {
            invariants::done_stays_done(&before, desk.core.shards()).unwrap();
        }
        let outranked = desk.core.outranked();
        if let Some(told) = told.filter(|told| told != "Flush" || !effects.is_empty()) {
            println!("{:>6} operator {operator}: {told:.600}", self.now);
            effects.iter().for_each(|effect| println!("        -> {:.600}", format!("{effect:?}")));
        }
        for effect in effects {
            self.carry_out(operator, effect);
        }
        let over = self.operators[operator].desk.as_ref().is_some_and(|desk| desk.core.is_over());
        match outranked {
            _ if over => self.end_desk(operator, None),
            Some(term) => {
                self.store.visit("outranked");
                self.end_desk(operator, Some(term));
            }
            None => {}
        }
    }

    fn carry_out(&mut self, operator: usize, effect: Effect) {
        let soon = self.now + self.chance.below(60);
        let Some(desk) = &mut self.operators[operator].desk else { return };
        match effect {
            Effect::Send { session, message } => {
                if let FromOperator::Orders(orders) = &message {
                    desk.check_grants(orders);
                }
                self.send_to_worker(session, message);
            }
            Effect::Close { session, .. } => self.close(session.0),
            Effect::StoreStatus { revision, status } => self.store_status(operator, revision, status),
            Effect::LookAtPool => desk.looks_at = desk.looks_at.min(soon),
            Effect::Release => desk.released = true,
            Effect::Announce(_) => {}
        }
    }

    fn store_status(&mut self, operator: usize, revision: Revision, status: Box<hyperflow_api::ShardJobStatus>) {
        let fate = match self.chance.below(40) {
            _ if !self.faults_last() => Fate::Answered,
            0 => Fate::Lost,
            1 => Fate::Late,
            2 | 3 => Fate::Unanswered,
            _ => Fate::Answered,
        };
        let at = self.now + self.chance.below(80);
        if let Some(desk) = &mut self.operators[operator].desk {
            desk.ledger.begin(at, revision, status, fate);
        }
    }

    /// The finalizer of a deleted object is taken off.
    fn let_go(&mut self, operator: usize) {
        let Some(desk) = &self.operators[operator].desk else { return };
        let Some(since) = desk.deleting else { return };
        assert!(desk.released || self.now <= since + 30_000, "the object waits for longer than promised (P24)");
        if desk.released && !self.api.is_away(self.now) && self.api.seen.deleting {
            let swept = self.store.visited.contains_key("swept after deletion");
            self.store.visit(if swept { "released when swept" } else { "released unswept" });
            self.api.gone = true;
        }
    }
}

impl Desk {
    /// Who is told to stop gets nothing but the sweep.
    fn check_grants(&self, orders: &Orders) {
        let revoked = |target: Target| orders.revoked.iter().any(|revoked| revoked.target == target);
        let rests = self.suspended || self.deleting.is_some();
        let stray = orders.grants.iter().find(|grant| rests && grant.target != Target::Sweep && !revoked(grant.target));
        assert!(stray.is_none(), "granted after the job was to stop: {stray:?}");
    }
}
