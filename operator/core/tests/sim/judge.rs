//! What must be true at the end, and what nobody may wait for on the way there.

use hyperflow_core::{ranges::RangeSet, reasons::NotNow, retry::MAX_KILLS};

use super::{api::done_in, operators::Desk, world::World};

/// Two heartbeats, and the grid of the model.
const BEATS: u64 = 1400;

/// A machine that lost so much may, with failures of shards, be one that gets no leases.
const FAILING: u64 = 2000;

impl World {
    /// No shard that is due waits for longer than a lease and two heartbeats while a worker that may take it is idle.
    pub fn nobody_waits_in_vain(&mut self) {
        let (now, mut idle) = (self.now, std::mem::take(&mut self.idle));
        let mut still = std::collections::BTreeMap::new();
        for (&number, pod) in &self.pods {
            let Some(process) = &pod.process else { continue };
            let Some(stream) = process.session.and_then(|id| self.streams.get(&id)) else { continue };
            let Some(desk) = self.operators[stream.operator].desk.as_ref().filter(|desk| desk.number == stream.desk)
            else {
                continue;
            };
            let sound = pod.machine.is_some_and(|place| {
                let machine = &self.machines[place];
                machine.is_fit(now) && machine.points < FAILING && !desk.unfit.contains(&place)
            });
            let heard = now >= process.frozen_until && !stream.is_stalled();
            let takes = process.core.is_in_session() && process.is_idle() && process.terminated.is_none();
            if !(sound && heard && takes && !pod.deleting && self.has_due_shard(desk)) {
                continue;
            }
            let key = (desk.number, number, process.id.nonce);
            let since = idle.remove(&key).unwrap_or(now);
            still.insert(key, since);
            assert!(
                now <= since + self.scenario.limits.lease_millis + BEATS,
                "at {now} pod {number} has been idle since {since}, and not now is {:?}: {:?}",
                desk.core.not_now(),
                desk.core.shards()
            );
        }
        self.idle = still;
    }

    /// A shard is due, and the job is at a point where it could be leased.
    fn has_due_shard(&self, desk: &Desk) -> bool {
        let rests = matches!(
            desk.core.not_now(),
            NotNow::TermNotStored
                | NotNow::ReservationPending
                | NotNow::Suspended
                | NotNow::Deleting
                | NotNow::Finished
                | NotNow::Sweeping
                | NotNow::Planning
                | NotNow::PlanBackingOff
                | NotNow::LeftToFaster
        );
        let shards = desk.core.shards();
        let due = shards.pending() > 0 || shards.waiting().values().any(|waiting| waiting.until <= self.now);
        due && !rests
    }

    /// The end of a job that was not deleted.
    pub fn judge(&mut self) {
        let status = self.api.seen.status.clone();
        let is = |kind: &str| status.conditions.iter().any(|it| it.type_ == kind && it.status == "True");
        let shards = status.shards.as_ref().unwrap();
        let failed: RangeSet = shards.failed_indexes.parse().unwrap();
        assert_eq!(shards.succeeded + shards.failed, shards.total);
        assert!(is("Complete") == failed.is_empty() && is("Failed") != failed.is_empty(), "{:?}", status.conditions);
        // Who published what had been given up may have had nobody left to tell.
        let done = done_in(&status);
        let lost = self.store.published().find(|index| !done.contains(*index) && !failed.contains(*index));
        assert!(lost.is_none(), "shard {lost:?} is published and not accounted for");
        let guilty: Vec<u32> = [self.scenario.poison, self.scenario.hungry].into_iter().flatten().collect();
        for index in &guilty {
            let says = |word: &str| {
                status.failures.iter().any(|it| it.reason == word && it.index == i32::try_from(*index).ok())
            };
            match (says("OOMKilled"), says("Poison")) {
                (true, _) => self.store.visit("given up for want of memory"),
                (_, true) => self.store.visit("given up as poison"),
                _ => {}
            }
            assert!(failed.contains(*index), "shard {index} kills every worker and was not given up");
        }
        for index in failed.iter().filter(|index| !guilty.contains(index)) {
            // What was alone in so many workers when they were lost cannot be told from what kills them.
            let deaths = self.deaths.get(&index).copied().unwrap_or(0);
            assert!(deaths >= MAX_KILLS && !self.scenario.gentle, "shard {index} was given up: {:?}", status.failures);
        }
    }
}
