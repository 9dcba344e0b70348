//! Runs in which shards are held half-way when the faults have ended, until every open group has its copies again: that is
//! judged (L10). Then one machine goes and comes back with some of its replicas old, damaged or gone, and what moves is
//! judged (I37). Then the shards are let go; in every second run the source is gone by then, and copies must do (L11), or
//! be waited for (L12, `absent.rs`).

use std::collections::BTreeSet;

use hyperflow_api::{ids::ShardIndex, message::Target};
use hyperflow_core::{
    blocks,
    invariants::{self, demand},
    worker::RunId,
};

use super::{
    absent::Absence,
    attempt::{Attempt, PLAN},
    faults::{FAULTS_END, Silence},
    pods::Pod,
    world::World,
};

/// Copies that are missing are there again after so long without faults: a store that was full rests a minute, what failed
/// rests longer each time, and stores of machines that nobody has a pod on any more are waited for (the breaker).
const RESTORED: u64 = 150_000;

/// So long nothing may move after a machine is back and all is whole.
const QUIET: u64 = 2000;

/// Whatever was wrong is mended after so long: streams that stalled are noticed, and sessions are opened anew.
const SEEN: u64 = 5000;

/// So often it is tried again when workers went meanwhile.
const TRIALS: u32 = 4;

/// How often a held attempt looks whether it may go on.
pub const HELD: u64 = 300;

/// How far a run is.
#[derive(Debug, Default)]
pub struct Calm {
    /// Since when nothing has been wrong.
    since: Option<u64>,
    trial: Option<Trial>,
    /// Trials of which nothing could be said.
    void: u32,
    over: bool,
    /// From now on what is read is read from copies.
    source_is_gone: bool,
    /// And somebody who may have some was away.
    pub absence: Option<Absence>,
}

/// A machine that goes and comes back.
#[derive(Debug)]
struct Trial {
    store: String,
    back: u64,
    /// The desk then: another one may not know of all copies when the first worker calls.
    desk: u64,
    /// Processes since then, by pod and nonce: if one of them ends, copies move for that.
    others: BTreeSet<(u64, u64)>,
    /// Groups that it had.
    had: BTreeSet<u32>,
    /// Copies were ordered while it was away.
    copied_meanwhile: bool,
    /// When it had told what it has, and the bytes of those blocks that are not what they should be.
    told: Option<(u64, u64)>,
    /// Since then to it, of groups that it had; and to others.
    moved: u64,
    elsewhere: u64,
}

impl Attempt {
    /// Two of three shards are held.
    fn is_held(&self) -> bool {
        matches!(self.grant.target, Target::Shard(index) if index % 3 != 1) && self.stop.is_none() && self.is_half_way()
    }
}

impl World {
    /// An attempt waits for the end of all that is judged here.
    pub fn holds(&self, pod: u64, run: RunId) -> bool {
        if !self.scenario.calm || self.calm.over {
            return false;
        }
        let process = self.pods.get(&pod).and_then(|pod| pod.process.as_ref());
        process.and_then(|process| process.attempt(run)).is_some_and(Attempt::is_held)
    }

    /// The operator whose books count, if nothing is wrong.
    fn calm_operator(&self) -> Option<usize> {
        let (now, seen) = (self.now, &self.api.seen);
        let usual = i32::try_from(self.scenario.parallelism) == Ok(seen.spec.parallelism);
        let sound = self.machines.iter().all(|machine| machine.is_fit(now) && now >= machine.silent_until);
        if now < FAULTS_END.max(self.api.away_until) || seen.spec.suspend || !usual || !sound {
            return None;
        }
        let [place] = self.open_desks()[..] else { return None };
        let operator = &self.operators[place];
        let sees = now >= operator.cut_off_until.max(operator.blind_until) && operator.leads(now);
        (sees && operator.desk.as_ref()?.leads).then_some(place)
    }

    /// Looks how far the run is.
    pub fn watch_copies(&mut self) {
        if !self.scenario.calm {
            return;
        }
        let calm = self.calm_operator();
        let since = calm.map(|_| self.calm.since.unwrap_or(self.now));
        self.calm.since = since;
        if self.calm.over {
            return;
        }
        self.watch_others();
        let (Some(place), Some(since), false) = (calm, since, self.calm.over) else { return };
        if let Some(lacking) = self.first_lacking(place) {
            let Some(desk) = &self.operators[place].desk else { return };
            assert!(
                self.now <= since + RESTORED,
                "L10 copies are made again: nothing has been wrong since {since}, and {lacking}; {:?}",
                desk.core.block_figures()
            );
        } else if self.calm.trial.is_some() {
            self.judge_trial(place);
        } else if !self.disks.are_loading() && self.pool_is_settled() {
            self.visit("copies are all there");
            self.begin_trial(place);
        }
    }

    /// No pod is about to go: where one came back and another had taken its place, copies move for that.
    fn pool_is_settled(&self) -> bool {
        self.pods.len() <= self.scenario.parallelism as usize && self.pods.values().all(|pod| !pod.deleting)
    }

    /// Shards of the job that nobody has settled yet, by a desk's books.
    pub fn open_groups(&self, place: usize) -> Vec<u32> {
        let Some(desk) = &self.operators[place].desk else { return Vec::new() };
        let shards = desk.core.shards();
        let open = |index: &ShardIndex| !shards.done().contains(*index) && !shards.failed().contains(*index);
        let total = self.scenario.shards;
        let groups: BTreeSet<u32> = (0..total).filter(open).map(|index| blocks::group_of(index, total)).collect();
        groups.into_iter().collect()
    }

    /// Pods in session with this desk whose stores have told what they have and stay, each with its machine and store.
    pub fn usable<'a>(&'a self, place: usize) -> Vec<(usize, &'a str)> {
        let Some(desk) = &self.operators[place].desk else { return Vec::new() };
        let usable = |pod: &'a Pod| {
            let process = pod.process.as_ref().filter(|process| process.core.is_in_session() && !process.terminated)?;
            let thawed = self.now >= process.frozen_until.max(process.cut_off_until);
            let stream = self.streams.get(&process.session?).filter(|stream| stream.desk == desk.number)?;
            let store =
                pod.store.as_deref().filter(|_| thawed && !pod.deleting && !stream.closed && !stream.is_stalled())?;
            (self.disks.plan_told(desk.number, store)? == PLAN).then_some((pod.machine?, store))
        };
        self.pods.values().filter_map(usable).collect()
    }

    /// I23. A worker ends because it heard nobody: something was wrong not longer ago than that may last.
    pub fn nobody_was_there(&self, orphan_millis: u64) {
        let alone = self.calm.since.is_none_or(|since| self.now < since + orphan_millis * 11 / 10 + SEEN);
        assert!(
            alone,
            "I23 workers go on alone: one ends for that, and nothing has been wrong since {:?}",
            self.calm.since
        );
    }

    /// What lacks copies though there are machines for them.
    fn first_lacking(&self, place: usize) -> Option<String> {
        let usable = self.usable(place);
        let machines: BTreeSet<usize> = usable.iter().map(|(machine, _)| *machine).collect();
        let wanted = machines.len().min(self.scenario.blocks? as usize);
        let open = self.open_groups(place);
        let pods = open.len().min(self.scenario.parallelism as usize);
        if usable.len() < self.pods.len().max(pods) {
            return Some(format!("of {} pods {} keep copies", self.pods.len(), usable.len()));
        }
        let on = |group: u32| -> BTreeSet<usize> {
            let whole = usable.iter().filter(|(_, store)| self.disks.has_whole(store, group));
            whole.map(|(machine, _)| *machine).collect()
        };
        let zones = |machines: &BTreeSet<usize>| {
            let zones = machines.iter().filter_map(|machine| self.scenario.zone_of(*machine));
            zones.collect::<BTreeSet<_>>().len()
        };
        let apart = zones(&machines).min(wanted);
        let lacks = |group: &u32| on(*group).len() < wanted || zones(&on(*group)) < apart;
        let lacking = open.into_iter().find(lacks)?;
        let on = on(lacking);
        Some(format!(
            "of {wanted} copies in {apart} zones of group {lacking} on {machines:?} there are those on {on:?}"
        ))
    }

    /// A machine with copies goes, for a moment or for so long that they are made again elsewhere.
    fn begin_trial(&mut self, place: usize) {
        let open = self.open_groups(place);
        let keeps = |(machine, store): (usize, &str)| {
            let had: BTreeSet<u32> = open.iter().copied().filter(|group| self.disks.has_whole(store, *group)).collect();
            (!had.is_empty()).then(|| (machine, store.to_owned(), had))
        };
        let alone = |machine: usize| self.pods.values().filter(|pod| pod.machine == Some(machine)).count() == 1;
        let all: Vec<_> = self
            .usable(place)
            .into_iter()
            .filter(|it| alone(it.0) && !self.disks.rests(it.1, self.now))
            .filter_map(keeps)
            .collect();
        let chance = &mut self.disks.chance;
        let which = usize::try_from(chance.below(all.len().max(1) as u64)).unwrap();
        let Some((machine, store, had)) = all.into_iter().nth(which).filter(|_| self.machines.len() > 1) else {
            return self.calm.over = true;
        };
        // Where the operator sees that a node is not ready, another pod takes the place of the one there, and one of them goes.
        let long = if self.scenario.nodes_known { chance.once_in(4) } else { !chance.once_in(4) };
        let millis = if long { 3000 + chance.below(9000) } else { 300 + chance.below(600) };
        let how = if chance.once_in(3) { Silence::CutOff } else { Silence::WithoutPower };
        let back = self.now + millis;
        self.calm.trial = Some(Trial {
            store,
            back,
            desk: self.last_desk,
            others: BTreeSet::new(),
            had,
            copied_meanwhile: false,
            told: None,
            moved: 0,
            elsewhere: 0,
        });
        self.machine_falls_silent(machine, millis, how, false);
    }

    /// The store of a process that begins is of the machine that was away: not all on it is as it was.
    pub fn is_on_trial(&self, store: &str) -> bool {
        self.calm.trial.as_ref().is_some_and(|trial| trial.store == store && trial.told.is_none())
    }

    /// A desk heard all that a store has.
    pub fn trial_hears(&mut self, store: &str) {
        let differs = |group: &u32| self.disks.differs(store, *group);
        if let Some(trial) = self.calm.trial.as_mut().filter(|trial| trial.store == store && trial.told.is_none())
            && self.now >= trial.back
        {
            trial.told = Some((self.now, trial.had.iter().map(differs).sum()));
        }
    }

    /// A copy is ordered.
    pub fn trial_orders(&mut self) {
        if let Some(trial) = self.calm.trial.as_mut().filter(|trial| trial.told.is_none()) {
            trial.copied_meanwhile = true;
        }
    }

    /// Bytes moved to a store.
    pub fn trial_moves(&mut self, store: &str, group: u32, bytes: u64) {
        let Some(trial) = self.calm.trial.as_mut().filter(|trial| trial.told.is_some()) else { return };
        match (trial.store == store, trial.had.contains(&group)) {
            (true, true) => trial.moved += bytes,
            (true, false) => {}
            (false, _) => trial.elsewhere += bytes,
        }
    }

    /// A process beside the one that comes back ends, or this one does again, or another operator takes the job over: nothing can be said of what moves.
    fn watch_others(&mut self) {
        let Some(trial) = &mut self.calm.trial else { return };
        let is_back = |pod: &Pod| trial.told.is_some() || pod.store.as_ref() != Some(&trial.store);
        let there = |(&number, pod): (&u64, &Pod)| Some((number, pod.process.as_ref()?.id.nonce));
        let there: BTreeSet<_> =
            self.pods.iter().filter(|(_, pod)| !pod.deleting && is_back(pod)).filter_map(there).collect();
        let stays = self.pods.values().any(|pod| !pod.deleting && pod.store.as_ref() == Some(&trial.store));
        if !stays || trial.desk != self.last_desk || !trial.others.is_subset(&there) {
            self.calm.void += 1;
            (self.calm.trial, self.calm.over) = (None, self.calm.void == TRIALS);
            return self.visit("a machine came back and other workers went");
        }
        trial.others = there;
    }

    /// I37, when all is whole again and at rest.
    fn judge_trial(&mut self, place: usize) {
        let Some(trial) = &self.calm.trial else { return };
        let Some((told, differs)) = trial.told else { return };
        if self.now < told + QUIET || self.disks.are_loading() {
            return;
        }
        let elsewhere = if trial.copied_meanwhile { 0 } else { trial.elsewhere };
        demand(invariants::returns_move_what_differs(&trial.store, trial.moved + elsewhere, differs));
        self.visit(match (trial.copied_meanwhile, trial.moved > 0) {
            (false, true) => "a machine came back soon and what differs moved",
            (false, false) => "a machine came back soon and nothing moved",
            (true, true) => "a machine came back late and what differs moved",
            (true, false) => "a machine came back late and nothing moved",
        });
        self.calm.over = true;
        if self.disks.chance.once_in(2) {
            self.visit("the source is gone");
            self.calm.source_is_gone = true;
            if self.disks.chance.once_in(2) {
                self.begin_absence(place);
            }
        }
    }

    pub fn source_is_gone(&self) -> bool {
        self.calm.source_is_gone
    }

    /// An attempt is about to read without a source, has no copy, and was told of none that it could read: of which group. If
    /// nobody was away, there is none such (L11).
    pub fn lacks_copies(&self, number: u64, nonce: u64, run: RunId) -> Option<u32> {
        let pod = self.pods.get(&number).filter(|_| self.calm.source_is_gone)?;
        let process = pod.process.as_ref().filter(|process| process.id.nonce == nonce)?;
        let attempt = process.attempt(run).filter(|attempt| attempt.reads())?;
        let Target::Shard(index) = attempt.grant.target else { return None };
        let group = blocks::group_of(index, self.scenario.shards);
        let near = pod.store.as_ref().is_some_and(|store| self.disks.has_whole(store, group));
        let told = self.disks.peers_told(number, nonce, group);
        let enough = near || told.iter().any(|peer| self.serves(peer, group));
        assert!(
            enough || self.calm.absence.is_some(),
            "L11 copies are enough: pod {number} reads shard {index}, has no copy, and was told of {told:?}"
        );
        (!enough).then_some(group)
    }
}
