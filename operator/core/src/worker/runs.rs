//! What this process works on: queued, running, or told to stop.

use std::collections::{BTreeMap, VecDeque};

use hyperflow_api::{
    ids::Epoch,
    message::{Grant, Held, Target},
};

use super::RunId;

/// An attempt that was started, or waits in line for a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) target: Target,
    /// The lease it goes on under now.
    pub(super) epoch: Epoch,
    pub(super) position: u64,
    /// When it got a slot.
    pub(super) since: Option<u64>,
    /// The lease is fenced: what it says from now on, but for a publish, is of no interest.
    pub(super) fenced: bool,
}

/// All work of the process.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    queued: VecDeque<Grant>,
    running: BTreeMap<RunId, Run>,
    last: u64,
    /// Mean duration of recent attempts of shards in microseconds; unknown before the first.
    mean_micros: Option<u64>,
}

/// What a grant was found to be.
pub(super) enum Accepted {
    /// New work, or the new epoch of work that goes on.
    Taken,
    /// The work it speaks of has ended here.
    Unknown,
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.running.is_empty()
    }

    /// Leases that are held, with how far they are.
    pub(super) fn held(&self) -> Vec<Held> {
        let queued = self.queued.iter().map(|grant| Held { target: grant.target, epoch: grant.epoch, position: 0 });
        let live = self.running.values().filter(|run| !run.fenced);
        let running = live.map(|run| Held { target: run.target, epoch: run.epoch, position: run.position });
        running.chain(queued).collect()
    }

    pub(super) fn accept(&mut self, grant: Grant) -> Accepted {
        if let Some(run) = self.running.values_mut().find(|run| run.target == grant.target && !run.fenced) {
            run.epoch = grant.epoch;
            return Accepted::Taken;
        }
        if let Some(queued) = self.queued.iter_mut().find(|queued| queued.target == grant.target) {
            // Re-issued before it began: what it knew of checkpoints stands, for the new grant does not repeat it.
            *queued = if grant.replaces.is_some() { Grant { epoch: grant.epoch, ..*queued } } else { grant };
            return Accepted::Taken;
        }
        if grant.replaces.is_some() {
            return Accepted::Unknown;
        }
        self.queued.push_back(grant);
        Accepted::Taken
    }

    /// The next attempt to begin, while there is a free slot or a free place in the line of `lined_up` for the next one.
    /// An attempt that is fenced keeps its slot until it ended.
    pub(super) fn start(&mut self, now: u64, slots: u32, lined_up: u32) -> Option<(RunId, Grant)> {
        let (started, slots) = (self.running.len(), slots as usize);
        if started >= slots + lined_up as usize {
            return None;
        }
        let grant = self.queued.pop_front()?;
        self.last += 1;
        let id = RunId(self.last);
        let since = (started < slots).then_some(now);
        let run = Run { target: grant.target, epoch: grant.epoch, position: 0, since, fenced: false };
        self.running.insert(id, run);
        Some((id, grant))
    }

    pub(super) fn progressed(&mut self, id: RunId, position: u64) {
        if let Some(run) = self.running.get_mut(&id) {
            run.position = run.position.max(position);
        }
    }

    pub(super) fn get(&self, id: RunId) -> Option<&Run> {
        self.running.get(&id)
    }

    pub(super) fn end(&mut self, now: u64, id: RunId) -> Option<Run> {
        let run = self.running.remove(&id)?;
        let Some(since) = run.since else { return Some(run) };
        if let Some(next) = self.running.values_mut().find(|next| next.since.is_none()) {
            next.since = Some(now);
        }
        if matches!(run.target, Target::Shard(_)) {
            let micros = now.saturating_sub(since) * 1000;
            self.mean_micros = Some(self.mean_micros.map_or(micros, |mean| (mean * 7 + micros) / 8));
        }
        Some(run)
    }

    /// Fences one lease; returns the attempt to stop, if it was running.
    pub(super) fn fence(&mut self, target: Target, epoch: Epoch) -> Option<RunId> {
        self.queued.retain(|grant| grant.target != target || grant.epoch != epoch);
        let mut live = self.running.iter_mut().filter(|(_, run)| !run.fenced);
        let (&id, run) = live.find(|(_, run)| run.target == target && run.epoch == epoch)?;
        run.fenced = true;
        Some(id)
    }

    /// How many have no slot yet.
    pub(super) fn waiting(&self) -> usize {
        self.queued.len() + self.in_line()
    }

    /// How many of them were started and wait for a slot.
    pub(super) fn in_line(&self) -> usize {
        self.running.values().filter(|run| run.since.is_none()).count()
    }

    /// Gives up what was not begun.
    pub(super) fn drain_queue(&mut self) -> Vec<Grant> {
        self.queued.drain(..).collect()
    }

    /// Attempts that are not fenced.
    pub(super) fn live(&self) -> Vec<RunId> {
        self.running.iter().filter(|(_, run)| !run.fenced).map(|(&id, _)| id).collect()
    }

    /// Leases to hold beyond the slots, so that a slot which becomes free does not wait for the operator: as many as are
    /// done in `ahead_millis`.
    pub(super) fn prefetch(&self, slots: u32, ahead_millis: u32, most: u32) -> u32 {
        match self.mean_micros {
            None => 0,
            Some(mean) => {
                let ahead = u64::from(ahead_millis) * 1000 * u64::from(slots) / mean.max(1);
                u32::try_from(ahead).unwrap_or(most).min(most)
            }
        }
    }
}
