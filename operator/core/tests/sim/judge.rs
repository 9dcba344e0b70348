//! What must be true at the end, and what nobody may wait for on the way there.

use hyperflow_core::{
    invariants::{self, Hardship, demand},
    ranges::RangeSet,
    reasons::NotNow,
};

use super::{
    absent::says_no_input,
    api::done_in,
    attempt::FATAL,
    operators::Desk,
    scenario::{LEASE_MILLIS, Rule},
    store::reference,
    world::World,
};

/// Two heartbeats, what clocks differ, and the grid of the watch.
const BEATS: u64 = 1700;

/// A machine that lost so much may, with failures of shards, be one that gets no leases.
const FAILING: u64 = 2000;

impl World {
    /// L2. No shard that is due waits for longer than a lease and two heartbeats while a worker that may take it is idle.
    pub fn nobody_waits_in_vain(&mut self) {
        let (now, mut idle) = (self.now, std::mem::take(&mut self.idle));
        let mut still = std::collections::BTreeMap::new();
        for (&number, pod) in &self.pods {
            let Some(process) = &pod.process else { continue };
            let Some(stream) = process.session.and_then(|id| self.streams.get(&id)) else { continue };
            let operator = &self.operators[stream.operator];
            let Some(desk) = operator.desk.as_ref().filter(|desk| desk.number == stream.desk) else { continue };
            let sound = pod.machine.is_some_and(|place| {
                let machine = &self.machines[place];
                machine.is_fit(now) && machine.points < FAILING
            });
            // What an operator has not seen yet, it cannot know to have changed.
            let told = now >= operator.blind_until && !self.api_is_away(stream.operator);
            // A worker that has been given something which is late knows nothing of it.
            let passes = !stream.is_stalled() && !stream.closed && !stream.is_late(now);
            let heard = now >= process.frozen_until && passes;
            let takes = process.core.is_in_session() && process.is_idle() && !process.terminated;
            if !(sound && heard && told && takes && !pod.deleting && self.has_due_shard(desk, operator)) {
                continue;
            }
            let key = (desk.number, number, process.id.nonce);
            let since = idle.remove(&key).unwrap_or(now);
            still.insert(key, since);
            assert!(
                now <= since + LEASE_MILLIS + BEATS,
                "L2 nobody waits in vain: at {now} pod {number} has been idle since {since}, and not now is {:?}: {:?}",
                desk.core.not_now(),
                desk.core.shards()
            );
        }
        self.idle = still;
    }

    /// A shard is due, and the job is at a point where it could be leased.
    fn has_due_shard(&self, desk: &Desk, operator: &super::operators::Operator) -> bool {
        let rests = matches!(
            desk.core.not_now(),
            NotNow::TermNotStored
                | NotNow::ReservationPending
                | NotNow::Suspended
                | NotNow::Deleting
                | NotNow::Finished
                | NotNow::Sweeping
                | NotNow::Finalizing
                | NotNow::Planning
                | NotNow::PlanBackingOff
                | NotNow::LeftToFaster
                | NotNow::LeftToOthers
                | NotNow::OutputFull
        );
        let (shards, now) = (desk.core.shards(), operator.clock.now(self.now).millis);
        let due = shards.pending() > 0 || shards.waiting().values().any(|waiting| waiting.until <= now);
        due && !rests
    }

    /// The end of a job that was not deleted.
    pub fn judge(&mut self) {
        let status = self.api.seen.status.clone();
        demand(invariants::the_end_is_explained(&status));
        demand(invariants::one_winner_each(self.store.records.iter().copied()));
        let done = done_in(&status);
        let asked = self.api.seen.spec.rerun.as_ref().map(|rerun| &rerun.nonce);
        let heard = status.plan.is_none() || asked == status.observed_rerun_nonce.as_ref();
        assert!(heard, "P25 every nonce is heard: {asked:?} was not");
        let (store, copies) = (&self.store, self.scenario.copies);
        let result = |index| (index, store.committed_bytes(index).map(<[u8]>::to_vec), reference(index));
        demand(invariants::outputs_are_right(done.iter().filter(|_| copies).map(result)));
        let recorded = |index| store.records.iter().any(|(of, _)| *of == index);
        if copies {
            demand(invariants::results_are_recorded(&done, recorded));
        }
        // Where nobody could sweep, that was said.
        if !self.sweep_failed && status.plan.is_some() {
            demand(invariants::nothing_temporary_is_left(&store.leftovers()));
        }
        if self.scenario.finally && status.conditions.iter().any(|it| it.type_ == "Complete" && it.status == "True") {
            assert!(self.store.finished > 0, "I31 the last command comes last: Complete, and it never ran");
        }
        if status.conditions.iter().any(|it| it.reason == "SpecChanged") {
            return self.visit("spec change ended the job");
        }
        if says_no_input(&status) {
            return self.visit("the job ended without its input");
        }
        if let Some(index) = self.scenario.fatal {
            if status.conditions.iter().any(|it| it.reason == FATAL) {
                return self.visit("a shard ended the job");
            }
            // It kills no worker: only workers that died of something else can have had it given up.
            let failed: RangeSet = status.shards.as_ref().unwrap().failed_indexes.parse().unwrap();
            assert!(failed.contains(index), "L3 what cannot be done ends the job: shard {index} did not");
        }
        if self.judge_policy(&status, &done) {
            self.judge_shards(&status, &done);
        }
    }

    /// What rules, tolerance and the first shards that fail alike must have led to. Whether all shards are settled.
    fn judge_policy(&mut self, status: &hyperflow_api::ShardJobStatus, done: &RangeSet) -> bool {
        let shards = status.shards.clone().unwrap_or_default();
        let end = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind && it.status == "True");
        let failed = end("Failed").map(|it| it.reason.clone()).unwrap_or_default();
        // A shard that was given up for its worker's death failed otherwise.
        let other = |it: &hyperflow_api::status::FailureSample| {
            // A sample shows the latest of its kind, which may have been no shard's.
            ["Poison", "OOMKilled"].contains(&it.reason.as_str())
        };
        let alike = done.is_empty() && shards.total >= 20 && !status.failures.iter().any(other);
        let stopped = failed == "AllShardsFailAlike";
        assert!(stopped || !(self.scenario.hopeless && alike), "L8 what cannot succeed stops: {shards:?}");
        if stopped {
            assert!(done.is_empty() && shards.failed >= 20, "L8 what may succeed goes on: {shards:?}");
            self.visit("all shards failed alike");
            return false;
        }
        if failed == "FailurePolicy" {
            assert_eq!(self.scenario.rule, Some(Rule::FailJob), "L7 rules are kept: none fails the job");
            self.visit("a rule failed the job");
            return false;
        }
        if failed == "FinallyFailed" {
            assert!(self.scenario.finally && !done.is_empty(), "I31 the last command comes last: {shards:?}");
            self.visit("the last command failed the job");
            return true;
        }
        let Some((percent, stops)) = self.scenario.tolerates else { return true };
        let allowed = u64::try_from(shards.total).unwrap() * u64::from(percent) / 100;
        // What was given up may be published late, when the job has been stopped for it already: the message has how many
        // there were then.
        let reasons = ["FailedShards", "MaxFailedShardsExceeded"];
        let then = end("Failed").filter(|it| stops && reasons.contains(&it.reason.as_str()));
        let then = then.and_then(|it| it.message.split(' ').next()?.parse().ok());
        let within = then.unwrap_or(u64::try_from(shards.failed).unwrap()) <= allowed;
        assert_eq!(within, end("Complete").is_some(), "L9 as many may fail as the spec says: {shards:?}, {percent} %");
        self.visit(if within { "ended with what is tolerated" } else { "more failed than is tolerated" });
        within || !stops
    }

    fn judge_shards(&mut self, status: &hyperflow_api::ShardJobStatus, done: &RangeSet) {
        let shards = status.shards.as_ref().unwrap();
        let failed: RangeSet = shards.failed_indexes.parse().unwrap();
        assert_eq!(shards.succeeded + shards.failed, shards.total, "I13 the end is explained: unsettled shards");
        // Who published what had been given up may have had nobody left to tell.
        let lost = self.store.published().find(|index| !done.contains(*index) && !failed.contains(*index));
        assert!(lost.is_none(), "I13 the end is explained: shard {lost:?} is published and not accounted for");
        let guilty: Vec<u32> = [self.scenario.poison, self.scenario.hungry].into_iter().flatten().collect();
        for index in &guilty {
            let says = |word: &str| {
                status.failures.iter().any(|it| it.reason == word && it.index == i32::try_from(*index).ok())
            };
            match (says("OOMKilled"), says("Poison")) {
                (true, _) => self.visit("given up for want of memory"),
                (_, true) => self.visit("given up as poison"),
                _ => {}
            }
            assert!(failed.contains(*index), "L3 poison is given up: shard {index} kills every worker and was not");
        }
        for index in failed.iter().filter(|index| !guilty.contains(index)) {
            let hardship = self.hardship.get(&index).copied().unwrap_or_default();
            let deaths = if self.scenario.gentle { 0 } else { hardship.deaths };
            // Whose want of memory a death was is the operator's best guess, and with few attempts one guess is enough.
            let guessed = status.failures.iter().any(|it| it.reason == "OOMKilled") && self.scenario.max_attempts < 4;
            let failures = hardship.failures + if guessed { hardship.deaths } else { 0 };
            let hardship = Hardship { deaths, failures };
            if self.given_up.contains(&index) {
                self.visit("a rule gave a shard up");
                continue;
            }
            demand(invariants::nobody_is_given_up_for_nothing(index, hardship, self.scenario.max_attempts));
        }
    }
}
