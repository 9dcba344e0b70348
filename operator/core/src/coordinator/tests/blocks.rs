//! A job with blocks, from its plan to its end: three nodes, each with a store.

use hyperflow_api::replica::{BlockOrder, Dropped, GroupHeld, Holdings, Host, LoadEnd, Peer, Trouble};

use super::*;

mod zones;

const PLAN: &str = "blake3:plan";
const SHARDS: u32 = 8;

fn spec(replicas: u32) -> Seen {
    let spec = json!({
        "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
        "task": {"copy": {}}, "output": {"url": "file:///data/out/"}, "parallelism": 3, "blocks": {"replicas": replicas},
        "workers": {"slots": 2, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    });
    Seen { spec: serde_json::from_value(spec).unwrap(), ..seen() }
}

fn node(number: u64) -> Node {
    Node { name: format!("node-{number}"), ready: true, cordoned: false, pressure: None }
}

fn pod_on(number: u64) -> Pod {
    Pod { node: Some(format!("node-{number}")), ..pod(&format!("pod-{number}")) }
}

/// What a store has of a group: two blocks of 512 KiB.
fn held(group: u32, good: u32, stale: u32, corrupt: u32) -> GroupHeld {
    GroupHeld {
        group,
        blocks: 2,
        good,
        stale,
        corrupt,
        digest: 0xd00d + u64::from(group),
        bytes: u64::from(good) << 19,
    }
}

fn whole(groups: impl IntoIterator<Item = u32>) -> Vec<GroupHeld> {
    groups.into_iter().map(|group| held(group, 2, 0, 0)).collect()
}

struct Blocks {
    desk: Desk,
    nonce: u64,
    announced: Vec<Announcement>,
}

impl Blocks {
    /// Planned; workers 1 to 3 are in session and want nothing.
    fn planned(replicas: u32) -> Self {
        let mut desk = Desk::new(&spec(replicas));
        desk.handle(Event::Flush);
        desk.store();
        desk.handle(Event::NodesSeen((1..=4).map(node).collect()));
        desk.handle(Event::PodsSeen((1..=4).map(pod_on).collect()));
        let mut it = Self { desk, nonce: 0, announced: Vec::new() };
        for number in 1..=3 {
            it.greet(number);
        }
        let plan = it.desk.wants(1).pop().unwrap();
        let planned = Planned {
            shards: SHARDS,
            files: 1,
            bytes: u64::from(SHARDS) << 20,
            digest: PLAN.into(),
            url: "file:///plan".into(),
        };
        let news = Fact { target: plan.target, epoch: plan.epoch, news: News::Planned(planned) };
        it.desk.report(1, Report { capacity: 0, ..facts(1, vec![news]) });
        it.settle();
        // Shards are reserved by the next write.
        it.passes(3000, &[1, 2, 3]);
        it
    }

    fn greet(&mut self, number: u64) {
        self.nonce += 1;
        let worker = WorkerId { pod_uid: format!("pod-{number}"), nonce: 1 };
        let host = Host {
            store: format!("store-{number}"),
            address: format!("10.0.0.{number}:7"),
            public_key: vec![],
            persistent: true,
            capacity: 1 << 30,
        };
        let hello = Hello {
            protocol: PROTOCOL,
            job: JobUid("uid".into()),
            worker,
            slots: 2,
            held: vec![],
            heard: 0,
            host: Some(host),
        };
        self.desk.handle(Event::SessionOpened { session: SessionId(number), hello });
        self.desk.handle(Event::Flush);
    }

    fn settle(&mut self) {
        if self.desk.storing.is_some() {
            self.desk.store();
        }
        let now = self.desk.now();
        let effects = self.desk.coordinator.handle(now, Event::Flush);
        for effect in effects {
            match effect {
                Effect::Send { session, message } => self.desk.said.push((session, message)),
                Effect::StoreStatus { revision, status } => {
                    self.desk.stored.push(*status);
                    self.desk.storing = Some(revision);
                }
                Effect::Announce(news) => self.announced.push(news),
                _ => {}
            }
        }
    }

    fn tells(&mut self, number: u64, full: bool, groups: Vec<GroupHeld>, ended: Vec<LoadEnd>) {
        self.tells_of(PLAN, number, full, groups, ended);
    }

    fn tells_of(&mut self, plan: &str, number: u64, full: bool, groups: Vec<GroupHeld>, ended: Vec<LoadEnd>) {
        let holdings = Some(Holdings { plan: plan.into(), full, free: 1 << 30, groups, ended });
        let first_number = if number == 1 { 2 } else { 1 };
        let report = Report { first_number, holdings, ..Report::default() };
        self.desk.handle(Event::Reported { session: SessionId(number), report });
        self.settle();
    }

    /// Time passes, and these are heard every second.
    fn passes(&mut self, millis: u64, heard: &[u64]) {
        for _ in 0..millis.div_ceil(1000) {
            self.desk.millis += 1000;
            for &number in heard {
                let first_number = if number == 1 { 2 } else { 1 };
                let report = Report { beat: true, first_number, ..Report::default() };
                self.desk.handle(Event::Reported { session: SessionId(number), report });
            }
            self.settle();
        }
    }

    fn orders(&mut self) -> Vec<(u64, BlockOrder)> {
        let said = std::mem::take(&mut self.desk.said);
        let orders = said.into_iter().flat_map(|(to, message)| match message {
            FromOperator::Orders(orders) => orders.blocks.into_iter().map(|order| (to.0, order)).collect(),
            FromOperator::Welcome(_) => Vec::new(),
        });
        orders.collect()
    }

    /// Carries out every order at once, until there is none. Returns loads from the source, and from others.
    fn fill(&mut self) -> (usize, usize) {
        let (mut source, mut peers) = (0, 0);
        for _ in 0..100 {
            let orders = self.orders();
            if orders.is_empty() {
                break;
            }
            let (from_source, from_peers) = self.carries_out(&orders);
            (source, peers) = (source + from_source, peers + from_peers);
        }
        (source, peers)
    }

    fn carries_out(&mut self, orders: &[(u64, BlockOrder)]) -> (usize, usize) {
        let (mut source, mut peers) = (0, 0);
        for (to, order) in orders {
            match order {
                BlockOrder::Load { group, order, from, source: reads, .. } => {
                    assert_eq!(*reads, from.is_empty(), "the source is for what nobody has");
                    if *reads {
                        source += 1;
                    } else {
                        peers += 1;
                    }
                    let end = LoadEnd { group: *group, order: *order, from_peers: 0, from_source: 0, trouble: None };
                    self.tells(*to, false, whole([*group]), vec![end]);
                }
                BlockOrder::Drop { group, .. } => self.tells(*to, false, vec![held(*group, 0, 0, 0)], vec![]),
                BlockOrder::Access { .. } => {}
            }
        }
        (source, peers)
    }

    fn filled(replicas: u32) -> Self {
        let mut it = Self::planned(replicas);
        for number in 1..=3 {
            it.tells(number, true, vec![], vec![]);
        }
        assert_eq!(it.fill(), (SHARDS as usize, SHARDS as usize * (replicas as usize - 1)));
        it
    }

    /// Stores with a group, as it was told.
    fn having(&self, group: u32) -> Vec<u64> {
        (1..=4).filter(|number| self.desk.coordinator.blocks.has(&format!("store-{number}"), group)).collect()
    }

    fn under(&self) -> u64 {
        self.desk.coordinator.block_figures().unwrap().under_replicated
    }

    fn heard(&self, reason: &str) -> usize {
        self.announced.iter().filter(|news| news.reason == reason).count()
    }

    fn leaves(&mut self, number: u64) {
        self.desk.handle(Event::SessionClosed(SessionId(number)));
        self.settle();
    }

    fn loads(&mut self) -> Vec<(u64, u32)> {
        let load = |(to, order)| match order {
            BlockOrder::Load { group, .. } => Some((to, group)),
            _ => None,
        };
        self.orders().into_iter().filter_map(load).collect()
    }

    fn drops(&mut self) -> Vec<(u64, u32, Dropped)> {
        let drop = |(to, order)| match order {
            BlockOrder::Drop { group, what } => Some((to, group, what)),
            _ => None,
        };
        self.orders().into_iter().filter_map(drop).collect()
    }
}

#[test]
fn each_group_is_read_once_from_the_source_and_copied_from_worker_to_worker() {
    let blocks = Blocks::filled(2);
    assert_eq!(blocks.under(), 0);
    assert!((0..SHARDS).all(|group| blocks.having(group).len() == 2));
}

#[test]
fn nothing_is_ordered_before_a_store_has_told_by_the_plan_in_force() {
    let mut blocks = Blocks::planned(2);
    assert_eq!(blocks.orders(), vec![]);
    blocks.tells_of("blake3:other", 1, true, whole(0..SHARDS), vec![]);
    assert_eq!((blocks.orders(), blocks.under()), (vec![], u64::from(SHARDS)));
    blocks.tells(2, true, vec![], vec![]);
    assert!(blocks.loads().iter().all(|(to, _)| *to == 2));
}

#[test]
fn two_loads_at_a_time_fill_a_store_and_a_session_that_ends_frees_them() {
    let mut blocks = Blocks::planned(1);
    blocks.tells(1, true, vec![], vec![]);
    assert_eq!(blocks.loads(), vec![], "the others are waited for");
    blocks.passes(10_000, &[1, 2, 3]);
    assert_eq!(blocks.loads(), [(1, 0), (1, 1)], "in the order of groups");
    blocks.leaves(1);
    blocks.greet(1);
    let report = Report {
        holdings: Some(Holdings { plan: PLAN.into(), full: true, free: 1 << 30, ..Holdings::default() }),
        first_number: 1,
        ..Report::default()
    };
    blocks.desk.handle(Event::Reported { session: SessionId(1), report });
    blocks.settle();
    assert_eq!(blocks.loads(), [(1, 0), (1, 1)]);
}

#[test]
fn copies_of_a_silent_store_are_made_again_when_it_is_lost_and_the_surplus_goes_when_it_is_back() {
    let mut blocks = Blocks::filled(2);
    let lost: Vec<u32> = (0..SHARDS).filter(|group| blocks.having(*group).contains(&3)).collect();
    blocks.leaves(3);
    blocks.passes(50_000, &[1, 2]);
    assert_eq!((blocks.loads(), blocks.under()), (vec![], 0), "only suspect");
    blocks.passes(12_000, &[1, 2]);
    assert_eq!((blocks.under(), blocks.heard("BlocksUnderReplicated")), (lost.len() as u64, 1));
    let (source, _) = blocks.fill();
    assert_eq!((source, blocks.under(), blocks.heard("BlocksReplicated")), (0, 0, 1));
    blocks.greet(3);
    assert_eq!(blocks.drops(), vec![], "nothing goes before it has told");
    blocks.tells(3, true, whole(lost.iter().copied()), vec![]);
    let drops = blocks.drops();
    assert_eq!(drops.len(), lost.len());
    assert!(drops.iter().all(|(_, _, what)| *what == Dropped::Surplus));
    for (to, group, _) in drops {
        blocks.tells(to, false, vec![held(group, 0, 0, 0)], vec![]);
    }
    assert!((0..SHARDS).all(|group| blocks.having(group).len() == 2));
    assert_eq!(blocks.drops(), vec![]);
}

#[test]
fn a_store_that_has_told_all_since_a_drop_takes_that_group_again() {
    let mut blocks = Blocks::filled(2);
    let lost: Vec<u32> = (0..SHARDS).filter(|group| blocks.having(*group).contains(&3)).collect();
    blocks.leaves(3);
    blocks.passes(62_000, &[1, 2]);
    blocks.fill();
    blocks.greet(3);
    blocks.tells(3, true, whole(lost.iter().copied()), vec![]);
    let drops = blocks.drops();
    let dropped = |group: &u32| drops.iter().any(|(to, of, _)| (to, of) == (&2, group));
    assert!((0..SHARDS).any(|group| dropped(&group)), "{drops:?}");
    let stay: Vec<u32> = (0..SHARDS).filter(|group| blocks.having(*group).contains(&2) && !dropped(group)).collect();
    for (to, group, _) in drops.iter().filter(|(to, _, _)| *to != 2) {
        blocks.tells(*to, false, vec![held(*group, 0, 0, 0)], vec![]);
    }
    // Its pod goes with the order: it was carried out, and nobody said so.
    blocks.leaves(2);
    blocks.greet(2);
    blocks.tells(2, true, whole(stay), vec![]);
    blocks.leaves(3);
    blocks.passes(62_000, &[1, 2]);
    blocks.fill();
    assert_eq!(blocks.under(), 0);
}

#[test]
fn a_pod_whose_node_was_lost_counts_for_what_it_has() {
    let mut blocks = Blocks::filled(2);
    let of = |blocks: &Blocks, number: u64| blocks.desk.coordinator.blocks.held_by_pod(&format!("pod-{number}"), None);
    let before = (of(&blocks, 2), of(&blocks, 3));
    assert!(before.0.1 > 0 && before.1.1 > 0 && of(&blocks, 4) == (0, 0));
    blocks.leaves(2);
    blocks.leaves(3);
    blocks.passes(70_000, &[1]);
    let shared = (0..SHARDS).filter(|group| !blocks.having(*group).contains(&1)).count();
    assert_eq!(of(&blocks, 3), (shared, before.1.1), "nobody else may be read for what only the two had");
    assert_eq!(of(&blocks, 2), (shared, before.0.1));
}

#[test]
fn a_node_that_is_back_in_time_refreshes_only_what_is_stale() {
    let mut blocks = Blocks::filled(2);
    let mut mine = (0..SHARDS).filter(|group| blocks.having(*group).contains(&3));
    let (stale, corrupt) = (mine.next().unwrap(), mine.next().unwrap());
    let rest: Vec<u32> = mine.collect();
    blocks.leaves(3);
    blocks.passes(5000, &[1, 2]);
    blocks.greet(3);
    let mut groups = whole(rest);
    groups.extend([held(stale, 1, 1, 0), held(corrupt, 1, 0, 1)]);
    blocks.tells(3, true, groups, vec![]);
    assert_eq!(blocks.heard("BlockCorrupt"), 1);
    let first = blocks.loads();
    assert_eq!(first.len(), 1, "one at a time: {first:?}");
    assert_eq!(blocks.under(), 2);
    let end = |group, order| LoadEnd { group, order, from_peers: 1 << 19, from_source: 0, trouble: None };
    blocks.tells(3, false, whole([first[0].1]), vec![end(first[0].1, 0)]);
    blocks.passes(301_000, &[1, 2, 3]);
    assert_eq!(blocks.loads().iter().filter(|(to, group)| *to == 3 && [stale, corrupt].contains(group)).count(), 1);
}

#[test]
fn one_node_of_two_or_three_is_repaired_and_two_of_three_open_the_breaker() {
    let mut blocks = Blocks::filled(2);
    blocks.leaves(2);
    blocks.leaves(3);
    blocks.passes(12_000, &[1]);
    assert_eq!(blocks.heard("ReplicationPaused"), 1);
    blocks.passes(60_000, &[1]);
    let loads = blocks.loads();
    assert!(loads.iter().all(|(_, group)| !blocks.having(*group).contains(&1)), "copied while it may be the network");
    blocks.passes(600_000, &[1]);
    assert_eq!(blocks.heard("ReplicationResumed"), 1, "nodes that are gone for good stop nothing");
}

#[test]
fn a_store_that_is_full_gets_nothing_for_a_minute_and_is_told_of_once() {
    let mut blocks = Blocks::planned(1);
    blocks.tells(1, true, vec![], vec![]);
    blocks.passes(10_000, &[1, 2, 3]);
    for _ in 0..2 {
        let orders = blocks.orders();
        let Some((_, BlockOrder::Load { group, order, .. })) = orders.last() else { panic!("{orders:?}") };
        let trouble = Some(Trouble { reason: Trouble::FULL.into(), message: "no room".into() });
        let end = LoadEnd { group: *group, order: *order, from_peers: 0, from_source: 0, trouble };
        blocks.tells(1, false, vec![], vec![end]);
        blocks.passes(59_000, &[1, 2, 3]);
        assert_eq!(blocks.loads(), vec![]);
        blocks.passes(2000, &[1, 2, 3]);
    }
    assert_eq!(blocks.heard(Trouble::FULL), 1);
}

#[test]
fn a_store_with_too_little_room_is_told_of_though_it_is_never_asked() {
    let mut blocks = Blocks::planned(1);
    for (free, told) in [(1 << 20, 0), ((1 << 20) - 1, 1), (0, 1)] {
        let holdings = Some(Holdings { plan: PLAN.into(), full: true, free, ..Holdings::default() });
        let report = Report { first_number: 2, holdings, ..Report::default() };
        blocks.desk.handle(Event::Reported { session: SessionId(1), report });
        blocks.settle();
        blocks.passes(10_000, &[1, 2, 3]);
        assert_eq!(blocks.loads().is_empty(), told > 0, "{free} bytes are free");
        assert_eq!(blocks.heard(Trouble::FULL), told, "{free} bytes are free");
    }
}

#[test]
fn a_load_that_failed_rests() {
    let mut blocks = Blocks::planned(1);
    blocks.tells(1, true, vec![], vec![]);
    blocks.passes(10_000, &[1, 2, 3]);
    let orders = blocks.orders();
    assert_eq!(orders.len(), 2, "{orders:?}");
    for (_, order) in &orders {
        let BlockOrder::Load { group, order, .. } = order else { panic!("{order:?}") };
        let trouble = Some(Trouble { reason: Trouble::UNREACHABLE.into(), message: "away".into() });
        let end = LoadEnd { group: *group, order: *order, from_peers: 0, from_source: 0, trouble };
        blocks.tells(1, false, vec![], vec![end]);
    }
    let first: Vec<u32> = orders.iter().map(|(_, order)| order.group()).collect();
    let next = blocks.loads();
    assert!(next.iter().all(|(_, group)| !first.contains(group)), "{next:?}");
}

#[test]
fn who_is_given_a_shard_whose_group_others_have_is_told_where_to_read() {
    let mut blocks = Blocks::planned(1);
    for number in 1..=3 {
        blocks.tells(number, true, if number == 2 { whole(0..SHARDS) } else { vec![] }, vec![]);
    }
    blocks.orders();
    let report = Report { capacity: 1, first_number: 1, ..Report::default() };
    blocks.desk.handle(Event::Reported { session: SessionId(3), report });
    blocks.settle();
    let orders = blocks.desk.orders(3);
    let peer = Peer { pod: "pod-2".into(), address: "10.0.0.2:7".into() };
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].grants[0].target, Target::Shard(0));
    assert_eq!(orders[0].blocks, [BlockOrder::Access { group: 0, from: vec![peer], grant: String::new() }]);
    blocks.tells(2, false, vec![held(0, 1, 0, 1)], vec![]);
    let orders = blocks.desk.orders(3);
    let told: Vec<_> = orders.iter().flat_map(|orders| &orders.blocks).collect();
    assert!(told.contains(&&BlockOrder::Access { group: 0, from: vec![], grant: String::new() }), "{told:?}");
}

#[test]
fn shards_go_to_the_workers_that_have_them_near() {
    let mut blocks = Blocks::planned(1);
    for number in 1..=3 {
        let groups = (0..SHARDS).filter(|group| u64::from(group % 3) + 1 == number);
        blocks.tells(number, true, whole(groups), vec![]);
    }
    for number in [3, 2] {
        let first_number = 1;
        let report = Report { capacity: 2, first_number, ..Report::default() };
        blocks.desk.handle(Event::Reported { session: SessionId(number), report });
        blocks.settle();
        let orders = blocks.desk.orders(number);
        let targets: Vec<Target> = orders.iter().flat_map(|orders| &orders.grants).map(|grant| grant.target).collect();
        let own = u32::try_from(number).unwrap() - 1;
        assert_eq!(targets, [Target::Shard(own), Target::Shard(own + 3)]);
        assert!(orders.iter().all(|orders| orders.blocks.is_empty()), "it reads its own");
    }
}

#[test]
fn what_only_one_pod_has_makes_it_the_last_to_go() {
    let mut blocks = Blocks::planned(1);
    for number in 1..=3 {
        blocks.tells(number, true, if number == 1 { whole(0..SHARDS) } else { vec![] }, vec![]);
    }
    let mut fewer = spec(1);
    fewer.spec.parallelism = 1;
    fewer.generation = 2;
    blocks.desk.handle(Event::JobSeen(Box::new(fewer)));
    let now = blocks.desk.now();
    let deleted: Vec<String> =
        blocks.desk.coordinator.wanted_pods(now).delete.into_iter().map(|(name, _)| name).collect();
    assert!(deleted.len() == 3 && !deleted.contains(&"pod-1".to_owned()), "{deleted:?}");
}

#[test]
fn other_bytes_under_the_same_version_are_not_read_and_go_when_enough_agree() {
    let mut blocks = Blocks::planned(2);
    let odd = GroupHeld { digest: 1, ..held(0, 2, 0, 0) };
    blocks.tells(1, true, whole(0..SHARDS), vec![]);
    blocks.tells(2, true, vec![odd], vec![]);
    blocks.passes(1000, &[1, 2, 3]);
    assert_eq!((blocks.heard("BlockCorrupt"), blocks.drops()), (1, vec![]));
    blocks.tells(3, true, whole(0..SHARDS), vec![]);
    assert_eq!(blocks.drops(), [(2, 0, Dropped::Surplus)]);
}

#[test]
fn the_next_operator_knows_who_had_what_and_makes_no_copy_before_it_has_heard() {
    let mut blocks = Blocks::filled(2);
    blocks.passes(3000, &[1, 2, 3]);
    let status = blocks.desk.stored.last().unwrap().clone();
    let counts = status.blocks.as_ref().unwrap();
    assert_eq!((counts.groups, counts.under_replicated, counts.kept_by.as_str()), (8, 0, "Node"));
    let left = Seen { status, ..spec(2) };
    let mut next = Blocks { desk: Desk::new(&left), nonce: 0, announced: Vec::new() };
    next.desk.handle(Event::Flush);
    next.desk.store();
    next.desk.handle(Event::NodesSeen((1..=4).map(node).collect()));
    next.desk.handle(Event::PodsSeen((1..=4).map(pod_on).collect()));
    let has = |number: u64| next.desk.coordinator.blocks.held_by_pod("new", pod_on(number).node.as_deref()).1;
    assert!((1..=3).all(|number| has(number) > 0) && has(4) == 0, "who has not called counts for what was known");
    for number in 1..=2 {
        next.greet(number);
        let report = Report {
            holdings: Some(Holdings { plan: PLAN.into(), full: true, free: 1 << 30, ..Holdings::default() }),
            first_number: 1,
            ..Report::default()
        };
        if number == 2 {
            next.desk.handle(Event::Reported { session: SessionId(2), report });
        }
        next.settle();
    }
    assert_eq!(next.desk.coordinator.blocks.notes().split(';').count(), 4, "{}", next.desk.coordinator.blocks.notes());
    let loads = next.loads();
    assert!(loads.iter().all(|(to, _)| *to == 2), "{loads:?}");
}

#[test]
fn what_a_store_tells_before_its_node_is_seen_to_be_back_counts_then() {
    for away in [50_000, 700_000] {
        let mut blocks = Blocks::filled(2);
        let mine: Vec<u32> = (0..SHARDS).filter(|group| blocks.having(*group).contains(&3)).collect();
        let ready = |number, ready| Node { ready, ..node(number) };
        let nodes = |back| Event::NodesSeen((1..=4).map(|number| ready(number, back || number != 3)).collect());
        blocks.leaves(3);
        blocks.desk.handle(nodes(false));
        blocks.passes(away, &[1, 2]);
        // Its worker calls at once, and the kubelet tells of the node ten seconds later, or much later.
        blocks.greet(3);
        blocks.tells(3, true, whole(mine.iter().copied()), vec![]);
        assert!(blocks.having(mine[0]).iter().all(|number| *number != 3), "its node is taken for lost");
        blocks.passes(700_000, &[1, 2, 3]);
        blocks.desk.handle(nodes(true));
        blocks.passes(2000, &[1, 2, 3]);
        assert!(mine.iter().all(|group| blocks.having(*group).contains(&3)), "after {away} ms");
    }
}

#[test]
fn input_that_is_away_is_waited_for_while_a_copy_may_come_back() {
    let missing = || Failure {
        class: FailureClass::BadInput,
        reason: "NoInput".into(),
        message: "open '/data/in': no such file".into(),
        ends_job: true,
        checkpoint_unusable: false,
        exit_code: None,
    };
    let mut blocks = Blocks::planned(1);
    for number in 1..=3 {
        blocks.tells(number, true, if number == 2 { whole(0..SHARDS) } else { vec![] }, vec![]);
    }
    blocks.leaves(2);
    let fails = |blocks: &mut Blocks, said: u64| {
        let report = Report { capacity: 1, beat: true, first_number: said, ..Report::default() };
        blocks.desk.handle(Event::Reported { session: SessionId(3), report });
        blocks.settle();
        let grant = blocks.desk.orders(3).into_iter().flat_map(|orders| orders.grants).next().unwrap();
        blocks.desk.report(3, Report { capacity: 0, ..facts(said, vec![fact(grant, News::Failed(missing()))]) });
        blocks.settle();
        blocks.desk.coordinator.verdict.is_some()
    };
    assert!(!fails(&mut blocks, 1), "the only copy is on a node that may come back");
    let history = blocks.desk.coordinator.shards().history(0).unwrap();
    assert_eq!((history.failures, history.losses), (0, 1));
    blocks.passes(700_000, &[1, 3]);
    assert!(fails(&mut blocks, 2), "it does not");
    let verdict = blocks.desk.coordinator.verdict.as_ref().unwrap();
    assert!(format!("{verdict:?}").contains("no such file"), "{verdict:?}");
}
