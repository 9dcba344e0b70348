use hyperflow_api::{
    ids::{Epoch, JobUid, WorkerId},
    message::{
        Fact, Failure, FailureClass, FromOperator, Grant, Held, Hello, News, Orders, PROTOCOL, Planned, Published,
        Report, Target,
    },
};
use serde_json::json;

use super::*;

mod blocks;
mod claims;
mod faults;
mod finishing;
mod life;
mod rules;
mod runs;
mod stragglers;

/// A coordinator of ten no-op shards with one pod, and what it said.
struct Desk {
    coordinator: Coordinator,
    millis: u64,
    stored: Vec<hyperflow_api::ShardJobStatus>,
    said: Vec<(SessionId, FromOperator)>,
    closed: Vec<SessionId>,
    storing: Option<Revision>,
    released: bool,
    asked: Vec<hyperflow_api::message::Owner>,
    /// The date when the clock was at zero.
    since: i64,
}

impl Desk {
    /// Taken over, its term stored, its pod seen.
    fn ready() -> Self {
        let mut desk = Self::new(&seen());
        desk.handle(Event::Flush);
        desk.store();
        desk.handle(Event::PodsSeen(vec![pod("pod-a"), pod("pod-b")]));
        desk
    }

    fn new(seen: &Seen) -> Self {
        let coordinator = Coordinator::take_over(Now { millis: 0, unix: 1000 }, seen, 7, 0, Limits::default()).unwrap();
        let (stored, said, closed, asked) = (vec![], vec![], vec![], vec![]);
        Self { coordinator, millis: 0, stored, said, closed, storing: None, released: false, asked, since: 1000 }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        for effect in self.coordinator.handle(now, event) {
            match effect {
                Effect::Send { session, message } => self.said.push((session, message)),
                Effect::Close { session, .. } => self.closed.push(session),
                Effect::StoreStatus { revision, status } => {
                    assert!(self.storing.is_none(), "one write at a time");
                    self.stored.push(*status);
                    self.storing = Some(revision);
                }
                Effect::Release => self.released = true,
                Effect::FindOwner(owner) => self.asked.push(owner),
                Effect::Announce(_) | Effect::LookAtPool => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now { millis: self.millis, unix: self.since + i64::try_from(self.millis / 1000).unwrap() }
    }

    /// The API server has the write.
    fn store(&mut self) {
        let revision = self.storing.take().expect("a status is being stored");
        self.handle(Event::StatusStored(revision));
    }

    fn hello(&mut self, session: u64, pod: &str, nonce: u64, held: Vec<Held>) {
        let worker = WorkerId { pod_uid: pod.into(), nonce };
        let hello =
            Hello { protocol: PROTOCOL, job: JobUid("uid".into()), worker, slots: 2, held, heard: 0, host: None };
        self.handle(Event::SessionOpened { session: SessionId(session), hello });
    }

    fn report(&mut self, session: u64, report: Report) {
        self.handle(Event::Reported { session: SessionId(session), report });
        self.handle(Event::Flush);
    }

    fn wants(&mut self, session: u64) -> Vec<Grant> {
        self.report(session, Report { capacity: 2, ..Report::default() });
        self.orders(session).into_iter().flat_map(|orders| orders.grants).collect()
    }

    /// What the session was ordered since it was last asked.
    fn orders(&mut self, session: u64) -> Vec<Orders> {
        let (mine, others) = std::mem::take(&mut self.said).into_iter().partition(|(to, _)| *to == SessionId(session));
        self.said = others;
        let orders = |(_, message)| match message {
            FromOperator::Orders(orders) => Some(orders),
            FromOperator::Welcome(_) => None,
        };
        Vec::into_iter(mine).filter_map(orders).collect()
    }
}

fn seen() -> Seen {
    let spec = json!({
        "source": {"numbers": {"count": 10}}, "task": {"noop": {}}, "parallelism": 2, "workers": {"slots": 2}
    });
    Seen {
        uid: JobUid("uid".into()),
        namespace: "ns".into(),
        name: "job".into(),
        generation: 1,
        spec: serde_json::from_value(spec).unwrap(),
        status: hyperflow_api::ShardJobStatus::default(),
        deleting: false,
        abandoned: false,
    }
}

fn pod(uid: &str) -> Pod {
    Pod {
        name: uid.into(),
        uid: uid.into(),
        node: Some("node-1".into()),
        zone: None,
        leaving: false,
        trouble: None,
        made_of: None,
        disruption: None,
        ends: 0,
        ended: None,
    }
}

fn fact(grant: Grant, news: News) -> Fact {
    Fact { target: grant.target, epoch: grant.epoch, news }
}

fn published() -> News {
    News::Published(Published { bytes: 0, crc32c: 0, found: false })
}

fn facts(first_number: u64, facts: Vec<Fact>) -> Report {
    Report { capacity: 2, first_number, facts, ..Report::default() }
}

#[test]
fn nothing_is_granted_and_nobody_welcomed_before_the_term_is_stored() {
    let mut desk = Desk::new(&seen());
    desk.handle(Event::PodsSeen(vec![pod("pod-a")]));
    desk.hello(1, "pod-a", 1, vec![]);
    desk.handle(Event::Flush);
    assert_eq!((desk.said.len(), desk.coordinator.not_now()), (0, NotNow::TermNotStored));
    assert_eq!(desk.stored[0].recovery.as_ref().unwrap().term, 1);
    desk.store();
    assert!(matches!(desk.said[..], [(SessionId(1), FromOperator::Welcome(_))]));
    assert_eq!(desk.wants(1).len(), 2);
}

#[test]
fn a_fact_is_acknowledged_only_after_the_status_that_holds_it_is_stored() {
    let mut desk = Desk::ready();
    desk.hello(1, "pod-a", 1, vec![]);
    let grants = desk.wants(1);
    desk.millis = 2000;
    desk.report(1, facts(1, vec![fact(grants[0], published())]));
    assert!(desk.orders(1).iter().all(|orders| orders.acked_through.is_none()));
    assert_eq!(desk.stored.last().unwrap().shards.as_ref().unwrap().completed_indexes, "0");
    desk.store();
    desk.handle(Event::Flush);
    assert!(desk.orders(1).iter().any(|orders| orders.acked_through == Some(1)));
}

#[test]
fn a_refused_write_acknowledges_nothing_and_comes_again() {
    let mut desk = Desk::ready();
    desk.hello(1, "pod-a", 1, vec![]);
    let grants = desk.wants(1);
    desk.millis = 2000;
    desk.report(1, facts(1, vec![fact(grants[0], published())]));
    let revision = desk.storing.take().unwrap();
    desk.handle(Event::StatusRefused(revision));
    desk.millis = 4000;
    desk.handle(Event::Flush);
    assert!(desk.orders(1).iter().all(|orders| orders.acked_through.is_none()));
    desk.store();
    desk.handle(Event::Flush);
    assert!(desk.orders(1).iter().any(|orders| orders.acked_through == Some(1)));
}

#[test]
fn a_restarted_container_is_another_worker() {
    let mut desk = Desk::ready();
    desk.hello(1, "pod-a", 1, vec![]);
    let old = desk.wants(1);
    desk.hello(2, "pod-a", 2, vec![]);
    let new = desk.wants(2);
    assert_eq!(new.iter().map(|grant| grant.target).collect::<Vec<_>>(), [Target::Shard(0), Target::Shard(2)]);
    assert!(new.iter().all(|grant| old.iter().all(|before| before.epoch != grant.epoch)));
}

#[test]
fn a_published_shard_is_believed_under_a_dead_epoch_and_its_new_holder_fenced() {
    let mut desk = Desk::ready();
    desk.hello(1, "pod-a", 1, vec![]);
    let old = desk.wants(1);
    desk.hello(2, "pod-b", 1, vec![]);
    desk.millis = 10_000;
    desk.handle(Event::Flush);
    let moved = desk.wants(2);
    assert_eq!(moved[0].target, old[0].target);
    desk.orders(1);
    desk.report(1, facts(1, vec![fact(old[0], published())]));
    assert!(desk.coordinator.shards().done().contains(0));
    let fenced = |orders: &Orders| orders.revoked.iter().any(|lease| lease.epoch == moved[0].epoch);
    assert!(desk.orders(2).iter().any(fenced));
}

#[test]
fn what_is_not_the_shards_own_failure_uses_up_no_attempt() {
    let mut desk = Desk::ready();
    desk.hello(1, "pod-a", 1, vec![]);
    let mut number = 1;
    for _ in 0..8 {
        desk.millis += 60_000;
        desk.report(1, Report { beat: true, capacity: 2, ..Report::default() });
        let grants: Vec<Grant> = desk.orders(1).into_iter().flat_map(|orders| orders.grants).collect();
        for grant in grants.iter().filter(|grant| grant.target == Target::Shard(0)) {
            let (class, reason) = (FailureClass::WorkerLost, "NoThread".to_owned());
            let failure = Failure {
                class,
                reason,
                message: "no".into(),
                ends_job: false,
                checkpoint_unusable: false,
                exit_code: None,
            };
            desk.report(1, facts(number, vec![fact(*grant, News::Failed(failure))]));
            number += 1;
        }
        if let Some(revision) = desk.storing.take() {
            desk.handle(Event::StatusStored(revision));
        }
    }
    assert!(number > 4, "it was tried {} times", number - 1);
    assert!(desk.coordinator.shards().failed().is_empty());
}

#[test]
fn only_a_worker_with_a_pod_of_the_job_may_speak() {
    let mut desk = Desk::ready();
    let claim = Held { target: Target::Shard(3), epoch: Epoch::default(), position: 0 };
    desk.hello(1, "stranger", 1, vec![claim]);
    desk.report(1, facts(1, vec![Fact { target: Target::Shard(0), epoch: Epoch::default(), news: published() }]));
    assert_eq!((desk.said.len(), &desk.closed[..]), (0, &[SessionId(1)][..]));
    assert_eq!(desk.coordinator.shards().next(), 0, "it was believed");
}

#[test]
fn a_job_that_takes_more_workers_gets_names_that_were_never_used() {
    let mut desk = Desk::new(&seen());
    desk.handle(Event::PodsSeen(vec![]));
    desk.handle(Event::Flush);
    let now = Now { millis: 0, unix: 1000 };
    assert_eq!(desk.coordinator.wanted_pods(now), WantedPods::default(), "not before the term is stored");
    desk.store();
    let wanted = desk.coordinator.wanted_pods(now);
    assert_eq!((wanted.create.len(), wanted.delete.len()), (2, 0));
    assert_eq!(desk.coordinator.wanted_pods(now), wanted, "asked again, the answer is the same");
    desk.handle(Event::PodsSeen(wanted.create.iter().map(|name| pod(name)).collect()));
    assert_eq!(desk.coordinator.wanted_pods(now), WantedPods { run: 1, ..WantedPods::default() });
    desk.handle(Event::PodsSeen(vec![pod(&wanted.create[0])]));
    let again = desk.coordinator.wanted_pods(now);
    assert!(again.create.len() == 1 && !wanted.create.contains(&again.create[0]));
}
