//! The operator's processes: who leads, their desks, and what a desk does with what the core says.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{
    ShardJobStatus,
    ids::{Epoch, ShardIndex},
    message::{Checkpoint, FromOperator, News, Orders, Target},
};
use hyperflow_core::{
    coordinator::{Coordinator, Effect, Event, Node, Pod, Revision, Seen, SessionId},
    invariants::{self, demand},
    ledger::takeover_of,
    rerun, status,
};

use super::{
    api::done_in,
    clock::Clock,
    ledger::{Fate, Ledger},
    scenario::{ODD, Rule},
    world::{Turn, World},
};

/// The pause before a desk that ended early is opened again: doubled up to the last.
const FIRST_PAUSE: u64 = 200;
const LAST_PAUSE: u64 = 30_000;
const SOUND: u64 = 60_000;

/// A process. Nobody knows better than itself that it does not lead any more.
pub struct Operator {
    pub clock: Clock,
    pub leads_from: u64,
    pub leads_until: u64,
    pub desk: Option<Desk>,
    /// It does not reach the API server until then.
    pub cut_off_until: u64,
    /// It sees nothing new until then.
    pub blind_until: u64,
    pub view: Option<View>,
    /// It ends after so many effects.
    pub dies_in: Option<(u32, u64)>,
    /// What becomes of its next write.
    pub fate: Option<Fate>,
    rests_until: u64,
    failures: u32,
    heard: u64,
}

/// What its caches hold.
#[derive(Clone)]
pub struct View {
    seen: Seen,
    version: u64,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
}

pub struct Desk {
    pub number: u64,
    pub core: Coordinator,
    pub ledger: Option<Ledger>,
    pub since: u64,
    wakes_at: u64,
    looks_at: u64,
    /// What it was told of the job, and since when.
    suspended: bool,
    /// It was told that what the plan freezes was changed (P4).
    changed: bool,
    pub deleting: Option<u64>,
    pub released: bool,
    /// Facts that arrived and are not acknowledged: by session and number.
    facts: BTreeMap<(SessionId, u64), (ShardIndex, Told)>,
    /// The last status that was stored, and when.
    stored: Option<(u64, Box<ShardJobStatus>)>,
    /// Its take-over was stored.
    pub leads: bool,
    /// What a rule on [`ODD`] has ended: some shards, or all.
    ended_by_rule: BTreeSet<ShardIndex>,
    failed_by_rule: bool,
    rule: Option<Rule>,
}

#[derive(Clone, Copy)]
enum Told {
    Published,
    Checkpointed(Checkpoint),
}

impl Operator {
    pub fn new(clock: Clock, leads_until: u64) -> Self {
        Self {
            clock,
            leads_from: 0,
            leads_until,
            desk: None,
            cut_off_until: 0,
            blind_until: 0,
            view: None,
            dies_in: None,
            fate: None,
            rests_until: 0,
            failures: 0,
            heard: 0,
        }
    }

    pub fn leads(&self, now: u64) -> bool {
        (self.leads_from..self.leads_until).contains(&now)
    }
}

impl World {
    pub fn open_desks(&self) -> Vec<usize> {
        let open = |&place: &usize| self.operators[place].desk.is_some();
        (0..self.operators.len()).filter(open).collect()
    }

    pub fn api_is_away(&self, operator: usize) -> bool {
        self.now < self.api.away_until.max(self.operators[operator].cut_off_until)
    }

    /// Now and then a process minds whether it leads, and opens the desk of the job.
    pub fn operator_minds(&mut self, place: usize) {
        if !self.operators[place].leads(self.now) || self.api.gone {
            self.end_desk(place, None);
        }
        self.open_desk(place);
        if self.open_desks().len() > 1 {
            self.visit("two desks at a time");
        }
        self.let_go(place);
        // Caches are filled anew now and then.
        if self.chance.once_in(20) {
            self.look_soon(place, 0);
        }
        let pause = 30 + self.chance.below(60);
        self.after(pause, Turn::OperatorMinds(place));
    }

    fn open_desk(&mut self, place: usize) {
        let operator = &self.operators[place];
        let idle = operator.desk.is_none() && operator.leads(self.now) && self.now >= operator.rests_until;
        if !idle || self.api_is_away(place) || self.api.gone {
            return;
        }
        let Seen { spec, status, .. } = &self.api.seen;
        if status::has_ended(spec, status, 1) && self.pods.is_empty() {
            return;
        }
        let fresh = self.now >= operator.blind_until || self.chance.once_in(2);
        let seen = if fresh { None } else { operator.view.clone() };
        let (seen, version) =
            seen.map_or_else(|| (self.api.seen.clone(), self.api.version), |view| (view.seen, view.version));
        let random = self.chance.draw();
        let operator = &mut self.operators[place];
        let (time, heard) = (operator.clock.now(self.now), std::mem::take(&mut operator.heard));
        let core = Coordinator::take_over(time, &seen, random, heard, self.scenario.limits()).unwrap();
        self.last_desk += 1;
        let ledger = Some(Ledger::new(version, core.takeover()));
        self.operators[place].desk = Some(Desk {
            number: self.last_desk,
            ledger,
            core,
            since: self.now,
            wakes_at: 0,
            looks_at: 0,
            suspended: seen.spec.suspend,
            changed: self.spec_changed.is_some_and(|generation| seen.generation >= generation),
            deleting: seen.deleting.then_some(self.now),
            released: false,
            facts: BTreeMap::new(),
            stored: None,
            leads: false,
            ended_by_rule: BTreeSet::new(),
            failed_by_rule: false,
            rule: self.scenario.rule,
        });
        self.desk_hears(place, Vec::new());
        self.look_soon(place, 0);
    }

    /// `early` is for a desk that ended before its job was over: the term that is to be outdone, or 0.
    pub fn end_desk(&mut self, place: usize, early: Option<u64>) {
        let now = self.now;
        let operator = &mut self.operators[place];
        let Some(desk) = operator.desk.take() else { return };
        if let Some(heard) = early {
            let failures = if now >= desk.since + SOUND { 0 } else { operator.failures };
            operator.rests_until = now + LAST_PAUSE.min(FIRST_PAUSE << failures.min(10));
            operator.failures = failures + 1;
            operator.heard = heard;
        } else {
            operator.failures = 0;
        }
        if let Some(ledger) = desk.ledger {
            self.abandon_write(ledger);
        }
        let of_desk = |stream: &super::streams::Stream| stream.desk == desk.number;
        let ids: Vec<u64> = self.streams.iter().filter(|(_, stream)| of_desk(stream)).map(|(&id, _)| id).collect();
        ids.into_iter().for_each(|id| self.close(id, false));
    }

    pub fn kill_operator(&mut self, place: usize, back: u64) {
        if self.operators[place].desk.is_some() {
            self.visit("operator killed");
            self.end_desk(place, None);
        }
        let returns = self.now + back;
        let operator = &mut self.operators[place];
        operator.leads_from = operator.leads_from.max(returns);
    }

    /// Something changed that operators watch.
    pub fn changed(&mut self) {
        for place in 0..self.operators.len() {
            let delay = self.chance.below(100);
            self.look_soon(place, delay);
        }
    }

    fn look_soon(&mut self, place: usize, delay: u64) {
        let at = self.now + delay;
        if let Some(desk) =
            self.operators[place].desk.as_mut().filter(|desk| desk.looks_at <= self.now || at < desk.looks_at)
        {
            desk.looks_at = at;
            self.at(at, Turn::OperatorLooks(place));
        }
    }

    /// Reconciliation: the desk is told what is there, and what it wants is done.
    pub fn operator_looks(&mut self, place: usize) {
        let now = self.now;
        let away = self.api_is_away(place);
        let Some(desk) = self.operators[place].desk.as_mut().filter(|desk| desk.looks_at == now) else { return };
        if away {
            return self.look_soon(place, 100);
        }
        desk.looks_at = 0;
        let blind = now < self.operators[place].blind_until;
        if blind {
            self.visit("looked at an old list");
        }
        let view = self.operators[place].view.clone().filter(|_| blind).unwrap_or_else(|| self.view());
        let mut events = vec![Event::JobSeen(Box::new(view.seen.clone()))];
        if self.scenario.nodes_known {
            events.push(Event::NodesSeen(view.nodes.clone()));
        }
        events.push(Event::PodsSeen(view.pods.clone()));
        let Some(desk) = &mut self.operators[place].desk else { return };
        desk.suspended = view.seen.spec.suspend;
        desk.changed = self.spec_changed.is_some_and(|generation| view.seen.generation >= generation);
        if view.seen.deleting {
            desk.deleting.get_or_insert(now);
        }
        self.operators[place].view = Some(view);
        self.desk_hears(place, events);
        let time = self.operators[place].clock.now(now);
        let Some(desk) = &mut self.operators[place].desk else { return };
        let wanted = desk.core.wanted_pods(time);
        assert!(wanted.create.is_empty() || desk.deleting.is_none(), "a pod for a deleted job: {wanted:?}");
        for (name, uid) in wanted.delete {
            self.visit("pod deleted");
            self.delete_pod(&name, &uid);
        }
        for name in wanted.create {
            self.create_pod(&name, wanted.run);
        }
    }

    fn view(&self) -> View {
        View {
            seen: self.api.seen.clone(),
            version: self.api.version,
            nodes: self.nodes_seen(),
            pods: self.pods_seen(),
        }
    }

    /// Events, then one flush, then what the core says: as the shell of a desk does.
    pub fn desk_hears(&mut self, place: usize, events: Vec<Event>) {
        let Self { now, operators, log, api, .. } = self;
        let operator = &mut operators[place];
        let Some(desk) = &mut operator.desk else { return };
        let time = operator.clock.now(*now);
        let mut effects = Vec::new();
        let knows = |event: &Event| matches!(event, Event::JobSeen(seen) if seen.spec.rerun == api.seen.spec.rerun);
        // After the API server was restored the run that it speaks of may be one before the desk's.
        let this_run =
            api.seen.status.run.and_then(|run| u32::try_from(run).ok()) == Some(desk.core.wanted_pods(time).run);
        let asked = this_run && rerun::is_asked(&api.seen.spec, &api.seen.status);
        let must_give_way = asked && events.iter().any(knows);
        for event in events.into_iter().chain([Event::Flush]) {
            log.tell(*now, || format!("operator {place} hears {event:?}"));
            desk.hears(&event);
            let of_two = desk.ends_one_of_two(&event);
            let odd = desk.odd(&event);
            effects.extend(desk.core.handle(time, event));
            for (index, before) in of_two {
                demand(invariants::one_of_two_is_spared(index, before, desk.core.shards()));
            }
            desk.notes_rules(&odd);
        }
        let works = !desk.core.shards().leased().is_empty();
        assert!(
            !(must_give_way && works),
            "P25 a run gives way: another is asked for, and shards of this one are leased"
        );
        self.note_revoked(&effects);
        for effect in effects {
            self.log.tell(self.now, || format!("operator {place} does {effect:?}"));
            let operator = &mut self.operators[place];
            if operator.dies_in.as_mut().is_some_and(|(left, _)| std::mem::replace(left, left.saturating_sub(1)) == 0) {
                let back = operator.dies_in.take().map_or(0, |(_, back)| back);
                self.visit("operator died between two effects");
                return self.kill_operator(place, back);
            }
            self.desk_does(place, effect);
        }
        self.who_lost_is_told(place);
        let now = self.now;
        let operator = &mut self.operators[place];
        let Some(desk) = &mut operator.desk else { return };
        if desk.core.is_over() {
            let ended = status::is_terminal(&self.api.seen.status, 1);
            let asked = rerun::is_asked(&self.api.seen.spec, &self.api.seen.status);
            if !ended && asked && !desk.core.shards().are_settled() {
                self.visit("run again while it ran");
            }
            return self.end_desk(place, None);
        }
        if let Some(term) = desk.core.outranked() {
            self.visit("outranked");
            return self.end_desk(place, Some(term));
        }
        let wake = desk.core.next_wake(time);
        assert!(wake > time.millis, "L5 nobody spins: nothing is left to do, and the desk wants to be asked at once");
        let at = operator.clock.when(wake).max(now + 1);
        if desk.wakes_at != at {
            desk.wakes_at = at;
            let desk = desk.number;
            self.at(at, Turn::DeskWakes { place, desk });
        }
    }

    pub fn desk_wakes(&mut self, place: usize, number: u64) {
        let now = self.now;
        if self.operators[place].desk.as_ref().is_some_and(|desk| desk.number == number && desk.wakes_at == now) {
            self.desk_hears(place, Vec::new());
        }
    }

    fn desk_does(&mut self, place: usize, effect: Effect) {
        let Some(desk) = &mut self.operators[place].desk else { return };
        match effect {
            Effect::Send { session, message } => {
                if let FromOperator::Orders(orders) = &message {
                    let number = desk.number;
                    self.check_blocks(number, session, orders);
                    self.check_orders(place, session, orders);
                    self.note_granted(place, session, orders);
                }
                self.send_to_worker(session, message);
            }
            Effect::Close { session, .. } => self.close(session.0, true),
            Effect::StoreStatus { revision, status } => self.store_status(place, revision, status),
            Effect::LookAtPool => {
                let soon = self.chance.below(60);
                self.look_soon(place, soon);
            }
            Effect::Release => desk.released = true,
            // No world has a claim of another job.
            Effect::FindOwner(_) => {}
            Effect::Announce(news) => self.sweep_failed |= news.reason == "SweepFailed",
        }
    }

    fn store_status(&mut self, place: usize, revision: Revision, status: Box<ShardJobStatus>) {
        let (now, latency) = (self.now, self.chance.below(80));
        let operator = &mut self.operators[place];
        let Some(desk) = &mut operator.desk else { return };
        demand(invariants::status_fits(desk.core.shards(), &status));
        if let Some((since, last)) = &desk.stored {
            let (from, to) = (operator.clock.now(*since).millis, operator.clock.now(now).millis);
            demand(invariants::writes_are_paced(to - from, last, &status));
        }
        self.log.note(now, &status.recovery);
        self.log.note(now, &status.shards);
        let fate = operator.fate.take().unwrap_or(Fate::Answered);
        let Some(ledger) = &mut desk.ledger else { return };
        ledger.begin(revision, status, fate);
        let number = desk.number;
        self.after(latency, Turn::LedgerActs { place, desk: number });
    }

    /// A status of this desk is in the API server.
    pub fn status_is_stored(&mut self, place: usize, revision: Revision, status: Box<ShardJobStatus>) {
        if let Some(desk) = &mut self.operators[place].desk {
            desk.stored = Some((self.now, status));
            desk.leads = true;
            self.changed();
            self.desk_hears(place, vec![Event::StatusStored(revision)]);
        }
    }

    /// The finalizer of a deleted object is taken off.
    fn let_go(&mut self, place: usize) {
        let Some(desk) = &self.operators[place].desk else { return };
        let Some(since) = desk.deleting else { return };
        // Nobody can do anything about it while the API server is away.
        let since = since.max(self.api.away_until).max(self.operators[place].cut_off_until);
        assert!(
            desk.released || self.now <= since + 33_000,
            "L6 a deleted object goes: it waits for longer than 30 s (P24)"
        );
        if desk.released && !self.api_is_away(place) && self.api.seen.deleting {
            let swept = self.store.swept;
            self.visit(if swept { "released when swept" } else { "released unswept" });
            self.api.gone = true;
        }
    }

    /// What is promised of orders, at the moment they are given.
    fn check_orders(&mut self, place: usize, session: SessionId, orders: &Orders) {
        let Some(desk) = &mut self.operators[place].desk else { return };
        let takeover = Some(desk.core.takeover()).filter(|_| desk.leads);
        let reserved = desk.stored.as_ref().and_then(|(_, status)| status.recovery.as_ref());
        let reserved = reserved.map_or(0, |notes| u32::try_from(notes.reserved_through).unwrap());
        for grant in &orders.grants {
            let Target::Shard(index) = grant.target else { continue };
            let by_rule = desk.failed_by_rule || desk.ended_by_rule.contains(&index);
            assert!(!by_rule, "L7 rules are kept: shard {index} is leased, and a rule has given it up");
            let revoked = orders.revoked.iter().any(|revoked| revoked.target == grant.target);
            let rests = (desk.suspended || desk.changed || desk.deleting.is_some()) && !revoked;
            demand(invariants::rests_when_told(index, rests));
            if grant.replaces.is_none() {
                demand(invariants::granted_by_right(grant.epoch, index, takeover, reserved));
                // One that was replaced and does not know it cannot know what another has acknowledged.
                let current = takeover_of(&self.api.seen.status) == takeover && !self.store.is_committed(index);
                if let Some(&known) = self.api.acknowledged.get(&index).filter(|_| current) {
                    demand(invariants::kept_what_was_acknowledged(index, known, grant.resume));
                }
            }
        }
        let stored = desk.stored.as_ref().map(|(_, status)| done_in(status)).unwrap_or_default();
        for number in desk.acknowledged(session, orders.acked_through) {
            let Some((index, told)) = desk.facts.remove(&(session, number)) else { continue };
            match told {
                Told::Published => demand(invariants::acknowledged_is_stored(index, &stored)),
                Told::Checkpointed(checkpoint) => {
                    let furthest = self.api.acknowledged.entry(index).or_insert(checkpoint);
                    if furthest.position < checkpoint.position {
                        *furthest = checkpoint;
                    }
                }
            }
        }
    }
}

impl Desk {
    /// The last status of it that is in the API server.
    pub fn stored_status(&self) -> Option<&ShardJobStatus> {
        self.stored.as_ref().map(|(_, status)| &**status)
    }

    fn acknowledged(&self, session: SessionId, through: Option<u64>) -> Vec<u64> {
        let through = through.unwrap_or(0);
        self.facts.range((session, 0)..=(session, through)).map(|(&(_, number), _)| number).collect()
    }

    fn lease(&self, index: ShardIndex) -> Option<Epoch> {
        self.core.shards().leased().get(&index).map(|leased| leased.lease.epoch)
    }

    /// Shards of which the only live attempt is said to have ended as a rule is about: one of two costs nothing (P19).
    fn odd(&self, event: &Event) -> Vec<(ShardIndex, Epoch)> {
        let Event::Reported { report, .. } = event else { return Vec::new() };
        let mut odd = Vec::new();
        for fact in &report.facts {
            if let (Target::Shard(index), News::Failed(failure)) = (fact.target, &fact.news)
                && failure.exit_code == Some(ODD)
                && let Some(leased) = self.core.shards().leased().get(&index)
                && leased.lease.epoch == fact.epoch
                && leased.twin.is_none()
            {
                odd.push((index, fact.epoch));
            }
        }
        odd
    }

    /// Those whose lease is over now were believed.
    fn notes_rules(&mut self, odd: &[(ShardIndex, Epoch)]) {
        for &(index, epoch) in odd {
            if self.lease(index) == Some(epoch) {
                continue;
            }
            self.failed_by_rule |= self.rule == Some(Rule::FailJob);
            if self.rule == Some(Rule::FailShard) {
                self.ended_by_rule.insert(index);
            }
        }
    }

    /// Remembers what a worker says, to see what is acknowledged: results, and checkpoints under a live lease.
    fn hears(&mut self, event: &Event) {
        let Event::Reported { session, report } = event else { return };
        for (fact, number) in report.facts.iter().zip(report.first_number..) {
            let Target::Shard(index) = fact.target else { continue };
            let live = self.core.shards().is_live(index, fact.epoch);
            match fact.news {
                News::Published(_) => self.facts.insert((*session, number), (index, Told::Published)),
                News::Checkpointed(told) if live => {
                    self.facts.insert((*session, number), (index, Told::Checkpointed(told)))
                }
                _ => continue,
            };
        }
    }
}
