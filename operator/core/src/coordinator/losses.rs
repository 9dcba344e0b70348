//! Workers that were lost, and what that costs the shards they had begun (P16).
//!
//! A loss is charged at once, with what is known: shards must not wait for the kubelet to say why a process died. When it
//! says so, what was charged is put right.

use std::collections::{BTreeSet, VecDeque};

use hyperflow_api::{
    ids::{ShardIndex, WorkerId},
    message::{Failure, FailureClass, Revoked, Target},
};

use super::{
    Coordinator, Pod, Worker,
    nodes::{FAILURE, LOSS},
};
use crate::{
    Now,
    causes::{self, Cause},
    history::{Blame, History},
    policy::{Action, Ruling},
    reasons::POISON,
    retry::Verdict as Retry,
    shards::{Lease, Leased, Seat},
};

/// Losses whose cause may still become known: a node is called lost after some forty seconds, a pod's end is told within
/// seconds.
const REMEMBERED_MILLIS: u64 = 600_000;
const REMEMBERED_MOST: usize = 256;

/// A worker that was lost for a reason that nobody knew.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    worker: WorkerId,
    node: String,
    at: u64,
    /// What it had begun.
    shards: Vec<ShardIndex>,
    /// The one that was charged.
    alone: Option<ShardIndex>,
    /// By a rule on lost workers each of them has used up an attempt.
    counted: bool,
}

pub(super) type Losses = VecDeque<Loss>;

impl Coordinator {
    /// Leases ended without a word of the worker, which `died` or is only silent. What it had only prefetched is not
    /// charged, nor what it lost because its pod was told to go.
    pub(super) fn lose(&mut self, now: Now, seat: Seat, targets: &[Target], died: bool) {
        let Some(worker) = self.workers.get(&seat) else { return };
        let begun = if worker.leaving { BTreeSet::new() } else { self.begun(seat, worker) };
        let alone = self.ran_alone(&begun);
        let cause = self.cause_of(worker);
        let (id, node) = (worker.id.clone(), worker.node.clone());
        let counted = self.ruling_on_loss(cause.as_ref(), Blame::Moved).action == Action::Count;
        let lost: Vec<ShardIndex> = targets.iter().filter_map(|target| shard(*target)).collect();
        // What goes on elsewhere is not charged, so there will be nothing to put right (P19).
        let spared: BTreeSet<ShardIndex> = lost.iter().copied().filter(|index| self.has_two(*index)).collect();
        for &target in targets {
            let blame = match shard(target) {
                Some(index) if !begun.contains(&index) => Blame::None,
                Some(_) if !died || cause.as_ref().is_some_and(Cause::acquits) => Blame::Moved,
                index if index == alone => Blame::Alone,
                _ => Blame::Suspect,
            };
            self.lost(now, seat, target, blame, cause.as_ref());
        }
        let shards: Vec<ShardIndex> = lost.into_iter().filter(|index| begun.contains(index)).collect();
        if shards.is_empty() {
            return;
        }
        let charge = if self.is_first_loss(seat) { LOSS } else { 0 };
        match cause.map(|cause| cause.class) {
            Some(FailureClass::Evicted | FailureClass::Preempted) => {}
            Some(FailureClass::OutOfMemory) => self.nodes.charge(now.millis, &node, FAILURE),
            Some(_) => self.nodes.charge(now.millis, &node, charge),
            None => {
                self.nodes.charge(now.millis, &node, charge);
                self.losses.retain(|loss| now.millis < loss.at + REMEMBERED_MILLIS);
                let shards = shards.into_iter().filter(|index| !spared.contains(index)).collect();
                let alone = alone.filter(|index| !spared.contains(index));
                self.losses.push_back(Loss { worker: id, node, at: now.millis, shards, alone, counted });
                self.losses.truncate(REMEMBERED_MOST);
            }
        }
    }

    /// Whether nothing of this worker was lost since it was last heard: its leases end one after the other, and its stream
    /// after them, but it is lost once.
    fn is_first_loss(&mut self, seat: Seat) -> bool {
        let Some(worker) = self.workers.get_mut(&seat) else { return true };
        worker.lost_at.replace(worker.heard) != Some(worker.heard)
    }

    /// The shards that a worker has begun: those it holds longest, as many as it has slots.
    fn begun(&self, seat: Seat, worker: &Worker) -> BTreeSet<ShardIndex> {
        let mut held: Vec<Target> = worker.held.iter().copied().collect();
        held.sort_by_key(|target| self.lease_of(seat, *target).map(|lease| lease.epoch.sequence));
        held.into_iter().take(worker.slots as usize).filter_map(shard).collect()
    }

    /// The shard that must have been it: the only one that ran, or the only suspect among them.
    fn ran_alone(&self, begun: &BTreeSet<ShardIndex>) -> Option<ShardIndex> {
        let only = |mut some: Vec<ShardIndex>| if some.len() == 1 { some.pop() } else { None };
        let suspect = |index: &ShardIndex| self.shards.history(*index).is_some_and(|history| history.suspect);
        only(begun.iter().copied().collect()).or_else(|| only(begun.iter().copied().filter(suspect).collect()))
    }

    /// Why a worker is lost, if it is known already.
    fn cause_of(&self, worker: &Worker) -> Option<Cause> {
        let pod = self.pool.pod(&worker.id.pod_uid);
        let disruption = pod.and_then(|pod| pod.disruption.as_ref()).map(Cause::of_disruption);
        let ended =
            pod.filter(|pod| pod.ends > worker.ends).and_then(|pod| pod.ended.as_ref()).map(Cause::of_termination);
        disruption
            .or_else(|| self.nodes.gone(&worker.node))
            .or_else(|| ended.filter(|cause| cause.class != FailureClass::WorkerLost))
    }

    /// A lease ended with its worker, not by its own failure.
    pub(super) fn lost(&mut self, now: Now, seat: Seat, target: Target, blame: Blame, cause: Option<&Cause>) {
        let Target::Shard(index) = target else {
            self.chore.lost(seat, target);
            return;
        };
        let held = self.shards.leased().get(&index).and_then(|leased| Some((leased.of(seat)?, leased.history)));
        let Some((Lease { epoch, position, .. }, before)) = held else { return };
        if self.one_of_two_ended(now, index, epoch) {
            return;
        }
        let ruling = self.ruling_on_loss(cause, blame);
        let history = before.after_loss(blame, ruling.action == Action::Count);
        let verdict = match ruling.action {
            Action::Count => self.job.retry.after_failure(index, history.failures, self.seed()),
            Action::Ignore | Action::Move => self.job.retry.after_loss(history.losses, history.kills),
            Action::FailShard | Action::FailJob => Retry::GiveUp,
        };
        self.end_attempt(now, index, epoch, history, verdict);
        if blame == Blame::None {
            return;
        }
        let from = history.checkpoint.map_or(0, |checkpoint| checkpoint.position);
        let gives_up = verdict == Retry::GiveUp;
        let poison = gives_up && matches!(ruling.action, Action::Ignore | Action::Move);
        let what = match (gives_up, poison) {
            (false, _) => format!("it goes on from byte {from} on another worker"),
            (true, true) => "too many workers were lost with it: it is given up".into(),
            (true, false) => "it is given up".into(),
        };
        let says = ruling.says();
        let message = format!("the worker was lost while the shard was at byte {position} or later; {what}{says}");
        let event = if gives_up && !poison { "ShardFailed" } else { "ShardMoved" };
        self.announce(true, event, format!("shard {index}: {message}"));
        // With a known cause the pod's own sample says it.
        if cause.is_none() || gives_up {
            let reason = if poison { POISON } else { LOST };
            self.sample(now, Some(index), seat, &failure(FailureClass::WorkerLost, reason, message.clone()));
        }
        if ruling.action == Action::FailJob {
            self.fail_by_rule(now, ruling, &format!("shard {index}: {message}"));
        } else if ruling.other_node && !gives_up {
            let node = self.workers.get(&seat).map(|worker| worker.node.clone()).unwrap_or_default();
            self.try_elsewhere(index, node);
        }
    }

    /// What pods say of their ends, compared with what they said before.
    pub(super) fn learn_of_pods(&mut self, now: Now, before: &[Pod]) {
        let pods: Vec<Pod> = self.pool.pods().cloned().collect();
        for pod in pods {
            let old = before.iter().find(|old| old.uid == pod.uid);
            let node = pod.node.clone().unwrap_or_default();
            if let Some(says) =
                pod.disruption.as_ref().filter(|_| old.and_then(|old| old.disruption.as_ref()).is_none())
            {
                let cause = Cause::of_disruption(says);
                self.put_right(now, &pod.uid, &cause);
                self.announce(
                    true,
                    "WorkerDisrupted",
                    format!("pod '{}': {}: {}", pod.name, cause.reason, cause.message),
                );
                self.sample_on(now, None, node.clone(), &failure(cause.class, &cause.reason, cause.message));
            }
            let ended = pod.ended.as_ref().filter(|_| old.is_some_and(|old| old.ends < pod.ends));
            if let Some(says) = ended {
                self.process_ended(now, &pod, &Cause::of_termination(says), &node);
            }
            let pulls = |pod: &Pod| pod.trouble.as_ref().is_some_and(|(reason, _)| causes::is_image_pull(reason));
            if let Some((reason, message)) = pod.trouble.as_ref().filter(|_| pulls(&pod) && !old.is_some_and(pulls)) {
                let failure = failure(FailureClass::ImagePull, reason, message.clone());
                self.sample_on(now, None, node, &failure);
                // Nothing has begun that could use up an attempt.
                if let Some(ruling) = self.job.rules.matching(&failure).filter(|it| it.action == Action::FailJob) {
                    self.fail_by_rule(now, ruling, &format!("pod '{}': {reason}: {message}", pod.name));
                }
            }
        }
    }

    fn process_ended(&mut self, now: Now, pod: &Pod, cause: &Cause, node: &str) {
        // A process that is in session now began after the one that ended, or it would not be.
        for worker in
            self.workers.values_mut().filter(|worker| worker.id.pod_uid == pod.uid && worker.session.is_some())
        {
            worker.ends = pod.ends;
        }
        if cause.class == FailureClass::WorkerLost {
            return;
        }
        let charged = self.put_right(now, &pod.uid, cause);
        let message = match charged {
            Some(index) => format!("shard {index}: {}", cause.message),
            None => cause.message.clone(),
        };
        self.announce(true, "WorkerKilled", format!("pod '{}': {}: {message}", pod.name, cause.reason));
        self.sample_on(now, charged, node.into(), &failure(cause.class, &cause.reason, message));
    }

    /// The cause of losses has become known. Returns the shard that is charged with it.
    fn put_right(&mut self, now: Now, pod: &str, cause: &Cause) -> Option<ShardIndex> {
        let (known, unknown) =
            std::mem::take(&mut self.losses).into_iter().partition(|loss: &Loss| loss.worker.pod_uid == pod);
        self.losses = unknown;
        known.into_iter().filter_map(|loss: Loss| self.settle(now, &loss, cause)).last()
    }

    /// The very process that was taken for lost speaks again: nothing that it had begun has killed it.
    pub(super) fn found_alive(&mut self, id: &WorkerId) {
        let losses = std::mem::take(&mut self.losses).into_iter();
        let (alive, lost): (Losses, Losses) = losses.partition(|loss| loss.worker == *id);
        self.losses = lost;
        for Loss { shards, alone, counted, .. } in alive {
            for index in shards {
                self.unsample(FailureClass::WorkerLost, LOST);
                self.shards.amend(index, |history| {
                    if counted {
                        history.uncount_loss();
                    }
                    history.acquit(alone == Some(index) && !counted);
                });
            }
            self.writer.touch();
        }
    }

    /// Nodes are not what they were: the losses on those that are gone are theirs.
    pub(super) fn acquit_by_nodes(&mut self, now: Now) {
        let losses: Vec<Loss> = self.losses.drain(..).collect();
        for loss in losses {
            match self.nodes.gone(&loss.node) {
                Some(cause) => {
                    self.settle(now, &loss, &cause);
                    let node = loss.node.clone();
                    self.sample_on(now, None, node, &failure(cause.class, &cause.reason, cause.message));
                }
                None => self.losses.push_back(loss),
            }
        }
    }

    fn settle(&mut self, now: Now, loss: &Loss, cause: &Cause) -> Option<ShardIndex> {
        let mut charged = None;
        for &index in &loss.shards {
            self.unsample(FailureClass::WorkerLost, LOST);
            if loss.counted {
                self.shards.amend(index, History::uncount_loss);
            }
            let blame = match loss.alone {
                _ if cause.acquits() => Blame::Moved,
                Some(alone) if alone == index => Blame::Alone,
                _ => Blame::Suspect,
            };
            // It was charged as a kill.
            let alone = loss.alone == Some(index) && !loss.counted;
            if cause.acquits() {
                self.shards.amend(index, |history| history.acquit(alone));
            }
            let ruling = self.ruling_on_loss(Some(cause), blame);
            match ruling.action {
                Action::Move | Action::Ignore => {}
                Action::Count => {
                    charged = charged.or(Some(index).filter(|_| blame == Blame::Alone));
                    let killed = alone && !cause.acquits();
                    let Some(history) = self.shards.amend(index, |history| history.count_loss(killed)) else {
                        continue;
                    };
                    let verdict = self.job.retry.after_failure(index, history.failures, self.seed());
                    self.delay_or_end(now, index, verdict, (cause, ruling));
                    if ruling.other_node {
                        self.try_elsewhere(index, loss.node.clone());
                    }
                }
                Action::FailShard => self.delay_or_end(now, index, Retry::GiveUp, (cause, ruling)),
                Action::FailJob => {
                    let what = format!("shard {index}: {}: {}", cause.reason, cause.message);
                    self.fail_by_rule(now, ruling, &what);
                }
            }
        }
        self.writer.touch();
        charged
    }

    /// What the shard should have been told when its attempt ended: that it is its last one, or to wait.
    fn delay_or_end(&mut self, now: Now, index: ShardIndex, verdict: Retry, (cause, ruling): (&Cause, Ruling)) {
        match verdict {
            Retry::RetryAfter(millis) => self.shards.delay(index, now.millis + millis),
            Retry::GiveUp => {
                if self.shards.history(index).is_none() {
                    return;
                }
                for lease in self.shards.fail(index).iter().flat_map(Leased::leases) {
                    self.revoke(lease.seat, Revoked { target: Target::Shard(index), epoch: lease.epoch });
                }
                let what = format!("shard {index}: {}: {}{}", cause.reason, cause.message, ruling.says());
                self.announce(true, "ShardFailed", format!("{what}; it is given up"));
            }
        }
    }
}

/// The reason of a sample as long as nobody knows a better one.
pub(super) const LOST: &str = "WorkerLost";

fn shard(target: Target) -> Option<ShardIndex> {
    match target {
        Target::Shard(index) => Some(index),
        Target::Plan | Target::Finally | Target::Sweep => None,
    }
}

pub(super) fn failure(class: FailureClass, reason: &str, message: String) -> Failure {
    Failure { class, reason: reason.into(), message, ends_job: false, checkpoint_unusable: false, exit_code: None }
}
