//! The source is gone, and a machine with copies is away. Shards that nobody else has a copy of end as a worker ends them
//! then, and the job waits for that machine as long as it may be heard again (L12).

use std::collections::BTreeSet;

use hyperflow_api::{ShardJobStatus, message::FailureClass};
use hyperflow_core::{reasons::NO_INPUT, worker::Outcome};

use super::{attempt, faults::Silence, scenario::LOST_MILLIS, world::World};

/// Workers were away when there was no source.
#[derive(Debug)]
pub struct Absence {
    /// Since when.
    began: u64,
    /// Groups of shards that ended for want of a copy.
    missed: BTreeSet<u32>,
}

/// How a worker ends a shard of which it finds neither input nor a copy.
pub fn without_input() -> Outcome {
    attempt::failed(FailureClass::BadInput, NO_INPUT, true)
}

/// Whether a status says that the job has failed for want of its input.
pub fn says_no_input(status: &ShardJobStatus) -> bool {
    status.conditions.iter().any(|it| it.type_ == "Failed" && it.status == "True" && it.reason == NO_INPUT)
}

impl World {
    pub fn begin_absence(&mut self, place: usize) {
        let open = self.open_groups(place);
        let keeps = |store: &str| open.iter().any(|group| self.disks.has_whole(store, *group));
        let machines: Vec<usize> =
            self.usable(place).into_iter().filter(|it| keeps(it.1)).map(|(machine, _)| machine).collect();
        let chance = &mut self.disks.chance;
        let which = usize::try_from(chance.below(machines.len().max(1) as u64)).unwrap();
        let Some(machine) = machines.get(which).copied() else { return };
        let millis = if chance.once_in(4) { 5000 + chance.below(20_000) } else { 300 + chance.below(LOST_MILLIS) };
        let how = match chance.below(3) {
            0 => Silence::Frozen,
            1 => Silence::CutOff,
            _ => Silence::WithoutPower,
        };
        self.absence_begins();
        self.visit("the source is gone and a machine with copies is away");
        self.machine_falls_silent(machine, millis, how, false);
    }

    /// A worker is away from now on, if not for that machine then because it ended by itself.
    pub fn absence_begins(&mut self) {
        if self.source_is_gone() && self.calm.absence.is_none() {
            self.calm.absence = Some(Absence { began: self.now, missed: BTreeSet::new() });
        }
    }

    /// A shard of this group has ended without its input.
    pub fn missed(&mut self, group: u32) {
        self.visit("a shard without its input");
        if let Some(absence) = &mut self.calm.absence {
            absence.missed.insert(group);
        }
    }

    /// L12. The job does not end for want of input while a worker has a copy of it that is not away for so long yet that
    /// its store counts as lost.
    pub fn nothing_could_come_back(&self, status: &ShardJobStatus) {
        let lately = |absence: &&Absence| self.now < absence.began + LOST_MILLIS;
        let Some(absence) = self.calm.absence.as_ref().filter(lately).filter(|_| says_no_input(status)) else { return };
        let kept = |group: &u32| {
            let mut stores = self.pods.values().filter(|pod| !pod.deleting).filter_map(|pod| pod.store.as_ref());
            stores.any(|store| self.disks.has_whole(store, *group))
        };
        let gone = absence.missed.iter().any(|group| !kept(group));
        assert!(gone, "L12 copies are waited for: the job ended for want of input, and copies of it were away");
    }
}
