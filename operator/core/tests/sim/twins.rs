//! What the model knows of two attempts of one shard (P19), and of the last command.

use hyperflow_api::{
    ids::ShardIndex,
    message::{FromOperator, Orders, Target},
};
use hyperflow_core::{
    coordinator::{Effect, Event, SessionId},
    history::History,
    invariants::{self, demand},
};

use super::{operators::Desk, scenario::Scenario, story::Run, streams::Stream, world::World};

fn shard(target: Target) -> Option<ShardIndex> {
    match target {
        Target::Shard(index) => Some(index),
        Target::Plan | Target::Finally | Target::Sweep => None,
    }
}

impl Desk {
    /// Shards of which this report ends one of two attempts, as they were before.
    pub fn ends_one_of_two(&self, event: &Event) -> Vec<(ShardIndex, History)> {
        let Event::Reported { report, .. } = event else { return Vec::new() };
        let ends_job = |news: &hyperflow_api::message::News| matches!(news, hyperflow_api::message::News::Failed(failure) if failure.ends_job);
        if report.facts.iter().any(|fact| ends_job(&fact.news)) {
            return Vec::new();
        }
        let shards = self.core.shards();
        let of_two = |fact: &hyperflow_api::message::Fact| {
            let leased = shards.leased().get(&shard(fact.target)?)?;
            (leased.twin.is_some() && leased.is_live(fact.epoch)).then_some((shard(fact.target)?, leased.history))
        };
        report.facts.iter().filter_map(of_two).collect()
    }
}

impl World {
    /// Leases that these effects end, before any is given by them.
    pub fn note_revoked(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Send { session, message: FromOperator::Orders(orders) } = effect else { continue };
            let Some(stream) = self.streams.get_mut(&session.0) else { continue };
            for revoked in &orders.revoked {
                if let Some(index) = shard(revoked.target) {
                    stream.ended(index, revoked.epoch);
                }
            }
        }
    }

    /// Leases that an operator gives now.
    pub fn note_granted(&mut self, place: usize, session: SessionId, orders: &Orders) {
        let Some(desk) = &self.operators[place].desk else { return };
        let (number, stored, deleting) = (desk.number, desk.stored_status().cloned(), desk.deleting.is_some());
        let (left, given_up) = (desk.core.shards().pending(), desk.core.shards().failed().clone());
        for grant in &orders.grants {
            match grant.target {
                Target::Shard(index) => {
                    let others = self.streams.iter().filter(|(id, stream)| {
                        **id != session.0 && stream.desk == number && self.is_heard(stream) && stream.has(index)
                    });
                    let workers = 1 + others.count();
                    // Who re-presents a shard after a take-over had it before.
                    let left = if grant.replaces.is_none() { left } else { 0 };
                    demand(invariants::two_at_most(index, workers, self.scenario.speculation, left));
                    if workers == 2 {
                        self.visit(if grant.replaces.is_none() { "duplicated" } else { "twins re-issued" });
                    }
                    if let Some(stream) = self.streams.get_mut(&session.0) {
                        stream.given_under(index, grant.epoch);
                    }
                }
                Target::Finally => {
                    let settled = |index| self.store.is_published_for_good(index) || given_up.contains(index);
                    let unsettled = (0..self.scenario.shards).find(|index| !settled(*index));
                    demand(invariants::finishes_last(unsettled, stored.as_ref()));
                }
                Target::Sweep if self.scenario.finally && !deleting => {
                    demand(invariants::swept_after_it_finished(stored.as_ref()));
                }
                Target::Plan | Target::Sweep => {}
            }
        }
    }

    /// Nobody that is heard works on what this operator knows to be settled.
    pub fn who_lost_is_told(&mut self, place: usize) {
        let Some(desk) = &self.operators[place].desk else { return };
        let shards = desk.core.shards();
        let mut mine = self.streams.values().filter(|stream| stream.desk == desk.number && self.is_heard(stream));
        demand(invariants::who_lost_is_told(mine.find_map(|stream| stream.find(|index| shards.is_settled(index)))));
    }

    fn is_heard(&self, stream: &Stream) -> bool {
        let process = self.pods.get(&stream.pod).and_then(|pod| pod.process.as_ref());
        !stream.closed && !stream.is_stalled() && process.is_some_and(|process| process.id.nonce == stream.nonce)
    }
}

/// Ten workers, one of them ten times slower than the others.
fn one_of_ten_is_slow(seed: u64, speculation: bool) -> Run {
    let scenario = Scenario {
        copies: true,
        shards: 40,
        parallelism: 10,
        slots: 1,
        machines: 3,
        pace: 1,
        slow: Some(10),
        slow_by: 10,
        poison: None,
        hungry: None,
        fatal: None,
        failing: None,
        max_attempts: 4,
        nodes_known: true,
        orphan_seconds: 600,
        gentle: false,
        speculation,
        finally: false,
        rule: None,
        tolerates: None,
        hopeless: false,
        rerun_at: None,
        rerun_at_end: false,
        blocks: None,
        disks_stay: false,
        zones: None,
        calm: false,
    };
    Run { seed, scenario, faults: Vec::new() }
}

#[test]
fn a_slow_worker_does_not_hold_up_the_end() {
    let took = |speculation| -> u64 {
        (1..=5).map(|seed| World::play(&one_of_ten_is_slow(seed, speculation), false).now).sum()
    };
    let (with, without) = (took(true), took(false));
    println!("one of ten workers is slow: {with} ms with second attempts, {without} ms without");
    assert!(with * 10 <= without * 7, "{with} ms with second attempts, {without} ms without");
}
