//! Lost workers, nodes that are not what they were, suspending and deleting.

use hyperflow_api::message::Revoked;

use super::*;
use crate::history::History;

fn with_slots(slots: u32) -> Seen {
    let spec = json!({
        "source": {"numbers": {"count": 10}}, "task": {"noop": {}}, "parallelism": 4, "workers": {"slots": slots}
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

fn publishing() -> Seen {
    let spec = json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": 2,
        "workers": {"slots": 2, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

impl Desk {
    fn of(seen: &Seen, pods: &[&str]) -> Self {
        let mut desk = Self::new(seen);
        desk.handle(Event::Flush);
        desk.store();
        desk.handle(Event::PodsSeen(pods.iter().map(|uid| pod(uid)).collect()));
        desk
    }

    /// A process of a pod that would hold so many leases; what it is granted.
    fn works(&mut self, session: u64, pod: &str, nonce: u64, slots: u32) -> Vec<Grant> {
        let worker = WorkerId { pod_uid: pod.into(), nonce };
        let hello =
            Hello { protocol: PROTOCOL, job: JobUid("uid".into()), worker, slots, held: vec![], heard: 0, host: None };
        self.handle(Event::SessionOpened { session: SessionId(session), hello });
        self.report(session, Report { capacity: slots, ..Report::default() });
        self.orders(session).into_iter().flat_map(|orders| orders.grants).collect()
    }

    /// The stream breaks and does not come back.
    fn dies(&mut self, session: u64) {
        self.handle(Event::SessionClosed(SessionId(session)));
        self.millis += 300;
        self.handle(Event::Flush);
    }

    fn history(&self, index: u32) -> History {
        self.coordinator.shards().history(index).unwrap_or_default()
    }

    /// The class and count of each kind of failure.
    fn failures(&self) -> Vec<(String, i32)> {
        self.coordinator.failures.iter().map(|sample| (sample.class.clone(), sample.count)).collect()
    }
}

fn shards(grants: &[Grant]) -> Vec<Target> {
    grants.iter().map(|grant| grant.target).collect()
}

#[test]
fn of_several_that_ran_all_are_suspects_and_none_is_charged() {
    let mut desk = Desk::of(&with_slots(3), &["a", "b", "c"]);
    assert_eq!(desk.works(1, "a", 1, 3).len(), 3);
    desk.dies(1);
    for index in 0..3 {
        assert_eq!(desk.history(index), History { losses: 1, suspect: true, ..History::default() });
    }
    let b = desk.works(2, "b", 1, 3);
    assert_eq!(shards(&b), [Target::Shard(0), Target::Shard(3), Target::Shard(4)], "one suspect, and others beside it");
    let c = desk.works(3, "c", 1, 3);
    assert_eq!(shards(&c)[0], Target::Shard(1));
}

#[test]
fn a_shard_that_kills_three_workers_alone_is_given_up() {
    let mut desk = Desk::of(&with_slots(1), &["a", "b", "c", "d"]);
    for (session, pod) in [(1, "a"), (2, "b"), (3, "c")] {
        desk.millis += 60_000;
        assert_eq!(shards(&desk.works(session, pod, 1, 1)), [Target::Shard(0)]);
        desk.dies(session);
    }
    assert!(desk.coordinator.shards().failed().contains(0));
    assert!(desk.coordinator.failures.iter().any(|sample| sample.reason == "Poison"));
    assert_eq!(shards(&desk.works(4, "d", 1, 1)), [Target::Shard(1)], "and nothing else stands still");
}

#[test]
fn prefetched_leases_are_not_charged() {
    let mut desk = Desk::of(&with_slots(1), &["a", "b"]);
    let worker = WorkerId { pod_uid: "a".into(), nonce: 1 };
    let hello =
        Hello { protocol: PROTOCOL, job: JobUid("uid".into()), worker, slots: 1, held: vec![], heard: 0, host: None };
    desk.handle(Event::SessionOpened { session: SessionId(1), hello });
    desk.report(1, Report { capacity: 4, ..Report::default() });
    desk.dies(1);
    assert_eq!(desk.history(0).kills, 1);
    for index in 1..4 {
        assert_eq!(desk.history(index), History::default());
    }
}

#[test]
fn an_out_of_memory_kill_that_is_told_late_becomes_a_failure_of_the_shard() {
    let mut desk = Desk::of(&with_slots(1), &["a", "b"]);
    desk.works(1, "a", 1, 1);
    desk.dies(1);
    assert_eq!((desk.history(0).kills, desk.failures()), (1, vec![("WorkerLost".into(), 1)]));
    let killed = Pod { ends: 1, ended: Some(("OOMKilled".into(), "exit code 137".into())), ..pod("a") };
    desk.handle(Event::PodsSeen(vec![killed.clone(), pod("b")]));
    let expected = History { failures: 1, suspect: true, ..History::default() };
    assert_eq!((desk.history(0), desk.failures()), (expected, vec![("OutOfMemory".into(), 1)]));
    // The restarted process runs on; what is known of the last one is not held against it.
    desk.millis += 60_000;
    desk.works(2, "a", 2, 1);
    desk.handle(Event::PodsSeen(vec![Pod { node: None, ..killed }, pod("b")]));
    assert_eq!(desk.failures(), [("OutOfMemory".into(), 1)]);
    desk.dies(2);
    assert_eq!(desk.history(0).kills, 1, "it died of something else");
}

#[test]
fn a_worker_that_was_only_out_of_reach_was_not_killed() {
    let mut desk = Desk::of(&with_slots(1), &["a", "b"]);
    desk.works(1, "a", 1, 1);
    desk.dies(1);
    assert_eq!(desk.history(0).kills, 1);
    assert_eq!(shards(&desk.works(2, "a", 1, 1)), [Target::Shard(0)]);
    assert_eq!(desk.history(0), History { losses: 1, ..History::default() });
    assert!(desk.failures().is_empty());
}

#[test]
fn a_node_that_is_found_lost_acquits_what_ran_there() {
    let mut desk = Desk::of(&with_slots(1), &["a", "b"]);
    let node = |ready| Node { name: "node-1".into(), ready, cordoned: false, pressure: None };
    let other = Node { name: "node-2".into(), ..node(true) };
    desk.handle(Event::NodesSeen(vec![node(true), other.clone()]));
    desk.works(1, "a", 1, 1);
    desk.dies(1);
    assert!(desk.history(0).suspect);
    desk.handle(Event::NodesSeen(vec![node(false), other]));
    assert_eq!(desk.history(0), History { losses: 1, ..History::default() });
    assert_eq!(desk.failures(), [("NodeLost".into(), 1)]);
    // Known before the next one dies, it costs nothing from the beginning.
    assert!(desk.works(2, "b", 1, 1).is_empty(), "a lost node takes no leases");
}

#[test]
fn a_preempted_pod_is_a_sample_and_costs_nothing() {
    let mut desk = Desk::of(&with_slots(2), &["a", "b"]);
    let grants = desk.works(1, "a", 1, 2);
    let disruption = Some(("PreemptionByScheduler".into(), "a bigger pod came".into()));
    let gone = Pod { disruption, leaving: true, ..pod("a") };
    desk.handle(Event::PodsSeen(vec![gone, pod("b")]));
    desk.report(1, Report { leaving: true, ..facts(1, vec![fact(grants[0], News::Released)]) });
    desk.dies(1);
    assert_eq!(desk.failures(), [("Preempted".into(), 1)]);
    for index in 0..2 {
        assert_eq!(desk.history(index), History::default());
    }
}

#[test]
fn a_cordoned_node_gets_no_leases_and_its_idle_pods_are_replaced() {
    let mut desk = Desk::of(&with_slots(1), &["a", "b", "c", "d"]);
    desk.works(1, "a", 1, 1);
    let node = Node { name: "node-1".into(), ready: true, cordoned: true, pressure: None };
    desk.handle(Event::NodesSeen(vec![node.clone()]));
    assert!(desk.works(2, "b", 1, 1).is_empty());
    assert_eq!(desk.coordinator.not_now(), NotNow::NodesUnfit);
    let wanted = desk.coordinator.wanted_pods(Now { millis: desk.millis, unix: 1000 });
    let deleted: Vec<&str> = wanted.delete.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((wanted.create.len(), &deleted[..]), (4, &["b", "c", "d"][..]), "what works is left alone");
    desk.handle(Event::NodesSeen(vec![Node { cordoned: false, ..node }]));
    desk.handle(Event::Flush);
    assert_eq!(desk.orders(2).iter().map(|orders| orders.grants.len()).sum::<usize>(), 1);
}

#[test]
fn a_slow_worker_gets_nothing_that_others_would_have_done_before_it() {
    let mut desk = Desk::of(&with_slots(1), &["slow", "fast"]);
    let (mut slow, mut fast) = (desk.works(1, "slow", 1, 1), desk.works(2, "fast", 1, 1));
    for said in 1..8 {
        desk.millis += 100;
        desk.report(2, Report { capacity: 1, ..facts(said, vec![fact(fast[0], published())]) });
        fast = desk.orders(2).into_iter().flat_map(|orders| orders.grants).collect();
        desk.report(1, Report { capacity: 1, beat: true, held: held(&slow), ..Report::default() });
    }
    // One is left; the slow one has taken 700 ms for its first, the fast one needs 200 for its own and that.
    desk.report(1, Report { capacity: 1, ..facts(1, vec![fact(slow[0], published())]) });
    slow = desk.orders(1).into_iter().flat_map(|orders| orders.grants).collect();
    assert_eq!((slow.len(), desk.coordinator.not_now()), (0, NotNow::LeftToFaster));
}

fn held(grants: &[Grant]) -> Vec<Held> {
    grants.iter().map(|grant| Held { target: grant.target, epoch: grant.epoch, position: 0 }).collect()
}

#[test]
fn a_suspended_job_loses_its_pods_and_nothing_else() {
    let mut desk = Desk::of(&with_slots(2), &["a"]);
    let grants = desk.works(1, "a", 1, 2);
    let mut seen = with_slots(2);
    seen.spec.suspend = true;
    seen.generation = 2;
    desk.millis += 2000;
    desk.handle(Event::JobSeen(Box::new(seen.clone())));
    let wanted = desk.coordinator.wanted_pods(Now { millis: desk.millis, unix: 1000 });
    assert_eq!((wanted.create.len(), wanted.delete.len()), (0, 1));
    desk.report(
        1,
        Report { leaving: true, ..facts(1, grants.iter().map(|grant| fact(*grant, News::Released)).collect()) },
    );
    desk.handle(Event::PodsSeen(vec![]));
    desk.millis += 2000;
    desk.handle(Event::Flush);
    if desk.storing.is_some() {
        desk.store();
    }
    desk.millis += 2000;
    desk.handle(Event::Flush);
    let says = |desk: &Desk, kind: &str| {
        let status = desk.stored.last().unwrap();
        status.conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.clone())
    };
    assert_eq!(says(&desk, "Suspended").as_deref(), Some("True"));
    assert_eq!(desk.coordinator.not_now(), NotNow::Suspended);
    seen.spec.suspend = false;
    seen.generation = 3;
    desk.handle(Event::JobSeen(Box::new(seen)));
    assert_eq!(desk.coordinator.wanted_pods(Now { millis: desk.millis, unix: 1000 }).create.len(), 4);
    desk.handle(Event::PodsSeen(vec![pod("b")]));
    assert_eq!(desk.works(2, "b", 1, 2).iter().map(|grant| grant.attempt).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_deleted_job_is_swept_by_a_worker_and_then_let_go() {
    let mut desk = Desk::of(&publishing(), &["a", "b"]);
    let plan = desk.works(1, "a", 1, 2);
    assert_eq!(shards(&plan), [Target::Plan]);
    desk.millis += 2000;
    desk.handle(Event::JobSeen(Box::new(Seen { deleting: true, ..publishing() })));
    desk.handle(Event::Flush);
    let orders = desk.orders(1);
    let revoked: Vec<&Revoked> = orders.iter().flat_map(|orders| &orders.revoked).collect();
    let sweep: Vec<Grant> = orders.iter().flat_map(|orders| orders.grants.clone()).collect();
    assert_eq!((revoked.len(), &shards(&sweep)[..], desk.released), (1, &[Target::Sweep][..], false));
    assert_eq!(
        desk.coordinator.wanted_pods(Now { millis: desk.millis, unix: 1000 }),
        WantedPods { run: 1, ..WantedPods::default() }
    );
    desk.report(1, facts(1, vec![fact(sweep[0], News::Swept(None))]));
    assert!(desk.released);
}

#[test]
fn whoever_is_left_sweeps_wherever_it_is() {
    let mut desk = Desk::of(&publishing(), &["a"]);
    desk.works(1, "a", 1, 2);
    desk.handle(Event::NodesSeen(vec![Node { name: "node-1".into(), ready: true, cordoned: true, pressure: None }]));
    desk.handle(Event::JobSeen(Box::new(Seen { deleting: true, ..publishing() })));
    desk.handle(Event::Flush);
    let granted: Vec<Grant> = desk.orders(1).into_iter().flat_map(|orders| orders.grants).collect();
    assert_eq!(shards(&granted), [Target::Sweep]);
}

#[test]
fn nobody_waits_for_a_sweep_that_cannot_come() {
    let deleted = Seen { deleting: true, ..publishing() };
    for (pods, abandoned, waits) in [(&["a"][..], false, true), (&[][..], false, false), (&["a"][..], true, false)] {
        let mut desk = Desk::of(&Seen { abandoned, ..deleted.clone() }, pods);
        desk.handle(Event::Flush);
        assert_eq!(desk.released, !waits, "{pods:?} {abandoned}");
        desk.millis += 25_000;
        desk.handle(Event::Flush);
        assert!(desk.released, "not for longer than 25 s");
    }
}

#[test]
fn a_worker_that_knows_a_higher_term_ends_this_take_over() {
    let mut desk = Desk::ready();
    let worker = WorkerId { pod_uid: "pod-a".into(), nonce: 1 };
    let hello =
        Hello { protocol: PROTOCOL, job: JobUid("uid".into()), worker, slots: 2, held: vec![], heard: 9, host: None };
    desk.handle(Event::SessionOpened { session: SessionId(1), hello: hello.clone() });
    assert_eq!((desk.coordinator.outranked(), &desk.closed[..]), (Some(9), &[SessionId(1)][..]));
    let next = Coordinator::take_over(Now::default(), &seen(), 8, 9, Limits::default()).unwrap();
    assert_eq!(next.takeover().term, 10);
    let mut desk = Desk::ready();
    desk.handle(Event::SessionOpened { session: SessionId(1), hello: Hello { heard: u64::MAX, ..hello } });
    assert_eq!(desk.coordinator.outranked(), None, "no honest worker says that");
}

/// A worker on each of two nodes.
fn on_two_nodes(slots: u32) -> Desk {
    let mut desk = Desk::of(&with_slots(slots), &[]);
    let on = |uid: &str, node: &str| Pod { node: Some(node.into()), ..pod(uid) };
    desk.handle(Event::PodsSeen(vec![on("pod-a", "node-a"), on("pod-b", "node-b")]));
    desk
}

#[test]
fn a_worker_that_falls_silent_is_lost_once_however_many_leases_it_had() {
    let mut desk = on_two_nodes(3);
    // Its leases run out one after the other.
    for Grant { target, epoch, .. } in desk.works(1, "pod-a", 1, 3) {
        desk.millis += 1000;
        let held = vec![Held { target, epoch, position: 0 }];
        desk.report(1, Report { beat: true, held, capacity: 3, ..Report::default() });
    }
    for _ in 0..60 {
        desk.millis += 500;
        desk.handle(Event::Flush);
    }
    assert!(desk.coordinator.shards().leased().is_empty(), "every lease ran out");
    let failing = desk.coordinator.nodes.failing(desk.millis, ["node-a", "node-b"].into_iter());
    assert!(failing.is_empty(), "one silence of three leases is not three lost workers: {failing:?}");
}

#[test]
fn the_last_shard_is_not_left_to_workers_that_get_nothing() {
    let mut desk = on_two_nodes(1);
    let (fast, slow) = (desk.works(1, "pod-a", 1, 1), desk.works(2, "pod-b", 1, 1));
    let mut next = fast[0];
    for number in 1..=8 {
        desk.millis += 10;
        desk.report(1, Report { capacity: 1, ..facts(number, vec![fact(next, published())]) });
        next = desk.orders(1).into_iter().flat_map(|orders| orders.grants).next().expect("the next shard");
    }
    desk.millis += 5000;
    desk.report(2, facts(1, vec![fact(slow[0], published())]));
    // The fast worker's node fails too often to be given anything.
    (0..3).for_each(|_| desk.coordinator.nodes.charge(desk.millis, "node-a", 1000));
    desk.report(1, facts(9, vec![fact(next, News::Released)]));
    let granted = desk.wants(2);
    assert_eq!(granted.len(), 1, "not now is {:?}", desk.coordinator.not_now());
}
