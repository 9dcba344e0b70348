//! News from workers: what each fact changes. Every fact may come twice, late, or under an epoch that has ended.

use hyperflow_api::{
    ids::{Epoch, MAX_SHARDS, ShardIndex},
    message::{Fact, Failure, FailureClass, News, PlanRef, Planned, Published, Revoked, Target},
    status::FailureSample,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{Coordinator, nodes};
use crate::{
    Now,
    policy::Ruling,
    retry::Verdict as Retry,
    shards::{History, Seat},
};

/// Most failure samples in status.
const SAMPLES: usize = 10;

/// Most bytes of a message in status.
const MESSAGE_BYTES: usize = 1024;

/// Said behind a failure for want of input of which there is a copy.
const COPY_AWAY: &str = " (whoever has a copy is away: the shard waits, and uses up no attempt)";

pub(super) fn plan_ref(plan: &Planned) -> PlanRef {
    PlanRef { shards: plan.shards, digest: plan.digest.clone() }
}

impl Coordinator {
    /// One fact is learned. What is said under an epoch that is not live may change nothing but what is published (P7).
    pub(super) fn learn(&mut self, now: Now, seat: Seat, fact: Fact) {
        #[cfg(debug_assertions)]
        let before = self.unless_live(&fact).then(|| self.shards.clone());
        self.take_in(now, seat, fact);
        #[cfg(debug_assertions)]
        if let Some(before) = before {
            crate::invariants::demand(crate::invariants::stale_epochs_change_nothing(&before, &self.shards));
        }
    }

    #[cfg(debug_assertions)]
    fn unless_live(&self, fact: &Fact) -> bool {
        let stale = matches!(fact.target, Target::Shard(index) if !self.shards.is_live(index, fact.epoch));
        stale && !matches!(fact.news, News::Published(_))
    }

    fn take_in(&mut self, now: Now, seat: Seat, fact: Fact) {
        let Fact { target, epoch, news } = fact;
        if !matches!(news, News::Checkpointed(_)) {
            self.holds_no_more(seat, target, epoch);
        }
        match (target, news) {
            (Target::Shard(index), News::Published(published)) => {
                self.learn_published(now, seat, index, epoch, published);
            }
            (Target::Shard(index), News::Checkpointed(checkpoint)) => {
                if self.shards.checkpoint(index, epoch, checkpoint) {
                    self.there_is_room(now, false);
                    self.writer.touch();
                }
            }
            (Target::Shard(index), News::Failed(failure)) => self.learn_failed(now, seat, index, epoch, &failure),
            (Target::Shard(index), News::Released) => self.learn_released(now, index, epoch),
            (Target::Plan, News::Planned(planned)) => {
                if self.chore.end(Target::Plan, epoch) && self.plan.is_none() {
                    self.there_is_room(now, true);
                    self.planned(now, planned.clone());
                    self.tell_plan(&planned);
                }
            }
            (Target::Plan, News::Claimed(owner)) => self.learn_claimed(epoch, owner),
            (Target::Sweep, News::Swept(report)) => {
                if self.chore.end(Target::Sweep, epoch) {
                    self.chore.swept = true;
                    self.report = report;
                }
            }
            (Target::Finally, News::Finalized) => self.learn_finalized(epoch),
            (Target::Plan | Target::Finally | Target::Sweep, News::Failed(failure)) => {
                if self.chore.end(target, epoch) {
                    self.chore_failed(now, seat, target, &failure);
                }
            }
            (Target::Plan | Target::Finally | Target::Sweep, News::Released) => {
                self.chore.end(target, epoch);
            }
            // A worker of this version says nothing else; one that does is believed in nothing.
            (Target::Shard(_), News::Planned(_) | News::Claimed(_) | News::Finalized | News::Swept(_))
            | (Target::Plan, News::Published(_) | News::Checkpointed(_) | News::Finalized | News::Swept(_))
            | (
                Target::Finally,
                News::Published(_) | News::Checkpointed(_) | News::Planned(_) | News::Claimed(_) | News::Swept(_),
            )
            | (
                Target::Sweep,
                News::Published(_) | News::Checkpointed(_) | News::Planned(_) | News::Claimed(_) | News::Finalized,
            ) => {}
        }
    }

    /// A fact about the store, believed from any epoch (P7). Attempts that still run elsewhere are fenced.
    fn learn_published(&mut self, now: Now, seat: Seat, index: ShardIndex, epoch: Epoch, published: Published) {
        if let Some(worker) = self.workers.get_mut(&seat) {
            worker.speed.finished();
        }
        if self.plan.is_none() && index < MAX_SHARDS {
            self.early.insert(index);
        }
        let (news, ended) = self.shards.published(index);
        if news {
            self.estimate.published(now.millis, published.bytes);
            self.there_is_room(now, true);
            self.writer.touch();
        }
        let Some(leased) = ended else { return };
        self.pace.learn(now.millis, &leased, epoch);
        for lease in leased.leases().filter(|lease| lease.epoch != epoch) {
            self.revoke(lease.seat, Revoked { target: Target::Shard(index), epoch: lease.epoch });
        }
    }

    fn learn_failed(&mut self, now: Now, seat: Seat, index: ShardIndex, epoch: Epoch, failure: &Failure) {
        let waits = self.waits_for_copies(index, failure);
        let failure = &Failure { ends_job: failure.ends_job && !waits, ..failure.clone() };
        if self.one_of_two_failed(now, seat, index, epoch, failure) {
            return;
        }
        let Some(leased) = self.shards.leased().get(&index).filter(|leased| leased.lease.epoch == epoch) else {
            return;
        };
        if self.is_full(failure) {
            return self.learn_full(now, seat, index, failure);
        }
        let mut history = leased.history;
        if failure.checkpoint_unusable {
            history.checkpoint = None;
        }
        let ruling = if waits { Ruling::MOVE } else { self.job.rules.judge(failure) };
        let (verdict, attempts) = self.charge(now, seat, index, &mut history, ruling);
        let attempts = if waits && verdict != Retry::GiveUp { COPY_AWAY.into() } else { attempts };
        self.end_attempt(now, index, epoch, history, verdict);
        self.tell_of_failure(now, (seat, index), failure, (ruling, verdict, &attempts));
    }

    fn learn_released(&mut self, now: Now, index: ShardIndex, epoch: Epoch) {
        let Some(leased) = self.shards.leased().get(&index).filter(|leased| leased.is_live(epoch)) else {
            return;
        };
        let history = leased.history;
        if !self.one_of_two_ended(now, index, epoch) {
            self.end_attempt(now, index, epoch, history, Retry::RetryAfter(0));
        }
    }

    pub(super) fn end_attempt(&mut self, now: Now, index: ShardIndex, epoch: Epoch, history: History, verdict: Retry) {
        match verdict {
            Retry::RetryAfter(millis) => self.shards.wait(index, epoch, now.millis + millis, history),
            Retry::GiveUp => self.shards.give_up(index, epoch),
        };
        self.writer.touch();
    }

    fn chore_failed(&mut self, now: Now, seat: Seat, target: Target, failure: &Failure) {
        self.sample(now, None, seat, failure);
        if target == Target::Sweep {
            let message = format!("temporary files were left behind: {}", failure.message);
            self.announce(true, "SweepFailed", message);
            self.chore.swept = true;
            return;
        }
        if self.is_full(failure) {
            self.chore.not_before = now.millis + self.wait_for_room(now, failure);
            return;
        }
        self.chore.failures += 1;
        match self.job.retry.after_failure(0, self.chore.failures, self.seed()) {
            Retry::RetryAfter(millis) if !failure.ends_job => {
                let reason = if target == Target::Finally { "FinallyRetried" } else { "PlanRetried" };
                self.announce(true, reason, format!("{}: {}", failure.reason, failure.message));
                self.chore.not_before = now.millis + millis;
            }
            _ if target == Target::Finally => self.finally_failed(now, failure),
            Retry::RetryAfter(_) | Retry::GiveUp => self.fail_job(now, &failure.reason, &failure.message),
        }
    }

    pub(super) fn charge_node(&mut self, now: Now, seat: Seat) {
        if let Some(worker) = self.workers.get(&seat) {
            self.nodes.charge(now.millis, &worker.node, nodes::FAILURE);
        }
    }

    fn tell_plan(&mut self, plan: &Planned) {
        for worker in self.workers.values_mut().filter(|worker| worker.welcomed) {
            worker.orders.plan = Some(plan_ref(plan));
        }
    }

    /// Keeps the latest failure of each kind, and how many there were.
    pub(super) fn sample(&mut self, now: Now, index: Option<ShardIndex>, seat: Seat, failure: &Failure) {
        let node_name = self.workers.get(&seat).map(|worker| worker.node.clone()).unwrap_or_default();
        self.sample_on(now, index, node_name, failure);
    }

    /// One failure less of a kind: it turned out to be of another.
    pub(super) fn unsample(&mut self, class: FailureClass, reason: &str) {
        let alike = |sample: &FailureSample| sample.class == class.name() && sample.reason == reason;
        if let Some(place) = self.failures.iter().position(alike) {
            self.failures[place].count -= 1;
            if self.failures[place].count <= 0 {
                self.failures.remove(place);
            }
        }
    }

    /// The same for what happened on a node, whoever's it was.
    pub(super) fn sample_on(&mut self, now: Now, index: Option<ShardIndex>, node_name: String, failure: &Failure) {
        self.writer.touch();
        let alike = |sample: &FailureSample| sample.class == failure.class.name() && sample.reason == failure.reason;
        let latest = FailureSample {
            class: failure.class.name().into(),
            reason: failure.reason.clone(),
            count: 1,
            index: index.and_then(|index| i32::try_from(index).ok()),
            node_name,
            message: shorten(&failure.message),
            last_time: Timestamp::from_second(now.unix).ok().map(Time),
        };
        match self.failures.iter().position(alike) {
            Some(place) => {
                let count = self.failures[place].count.saturating_add(1);
                self.failures[place] = FailureSample { count, ..latest };
            }
            None if self.failures.len() < SAMPLES => self.failures.push(latest),
            None => {}
        }
    }
}

pub(crate) fn shorten(message: &str) -> String {
    shorten_to(message, "")
}

/// A message and what is said behind it, which is not what is cut off.
pub(super) fn shorten_to(message: &str, behind: &str) -> String {
    let most = MESSAGE_BYTES.saturating_sub(behind.len()).min(message.len());
    let end = (0..=most).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
    message[..end].to_owned() + behind
}
