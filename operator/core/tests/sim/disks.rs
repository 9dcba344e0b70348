//! Disks of machines and pods, with replicas of blocks on them: loads take time and move counted bytes, what a machine has
//! may be old, damaged or gone when it is back, and disks are full. And what is promised of orders about them (P28 to P30).

use std::collections::BTreeMap;

use hyperflow_api::{
    message::{Orders, Report},
    replica::{BlockOrder, Dropped, GroupHeld, Holdings, Host, LoadEnd, Peer, Trouble},
};
use hyperflow_core::{blocks, coordinator::SessionId, worker::Event};

use super::{
    attempt::PLAN,
    chance::Chance,
    faults::FAULTS_END,
    pods::Pod,
    world::{Turn, World},
};

/// Blocks of a group, and bytes of a block.
const PARTS: u32 = 2;
const BYTES: u64 = 1000;

/// Nobody need know sooner that a process has ended: damage counts from then.
const UNNOTICED: u64 = 5000;

/// A store without room gets no groups for so long, by any clock.
const RESTS: u64 = 66_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replica {
    Good,
    Stale,
    Corrupt,
}

/// A machine that is silent for so long is seen to be; and after so long it is gone for good.
const SEEN: u64 = 6500;
const GONE: u64 = 25_000;

/// A directory of replicas.
#[derive(Clone, Debug, Default)]
struct Disk {
    replicas: BTreeMap<(u32, u32), Replica>,
    full_until: u64,
    /// When it last said so.
    told_full: Option<u64>,
    /// Good ones that it lost, and when: an operator cannot know at once.
    damaged: BTreeMap<u32, u64>,
}

impl Disk {
    fn held(&self, group: u32) -> GroupHeld {
        let count = |wanted| {
            let is = |part: &u32| self.replicas.get(&(group, *part)) == Some(&wanted);
            u32::try_from((0..PARTS).filter(is).count()).unwrap()
        };
        let good = count(Replica::Good);
        let (stale, corrupt) = (count(Replica::Stale), count(Replica::Corrupt));
        let whole = if good == PARTS { 7 } else { u64::from(good) };
        let digest = whole << 32 | u64::from(group);
        GroupHeld { group, blocks: PARTS, good, stale, corrupt, digest, bytes: u64::from(good) * BYTES }
    }

    fn is_whole(&self, group: u32) -> bool {
        self.held(group).good == PARTS
    }
}

/// A load on its way.
#[derive(Clone, Debug)]
pub struct Loading {
    group: u32,
    order: u64,
    from: Vec<Peer>,
    source: bool,
}

/// All disks, and what desks were told of them.
pub struct Disks {
    pub chance: Chance,
    disks: BTreeMap<String, Disk>,
    loading: BTreeMap<u64, Loading>,
    last: u64,
    /// By desk, store and group.
    told: BTreeMap<(u64, String, u32), GroupHeld>,
    /// The plan that a store compares with, by what a desk was told.
    plans: BTreeMap<(u64, String), String>,
    /// When a desk last heard of a store's worker.
    heard: BTreeMap<(u64, String), u64>,
    /// Where a process may read a group: by pod and nonce.
    access: BTreeMap<(u64, u64, u32), Vec<Peer>>,
    pub moved: u64,
}

impl Disks {
    pub fn new(seed: u64) -> Self {
        let (disks, loading, told, plans) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (heard, access) = (BTreeMap::new(), BTreeMap::new());
        Self { chance: Chance(seed ^ 0xb10c), disks, loading, last: 0, told, plans, heard, access, moved: 0 }
    }

    /// The plan that a store compares with, as a desk was told.
    pub fn plan_told(&self, desk: u64, store: &str) -> Option<&str> {
        self.plans.get(&(desk, store.to_owned())).map(String::as_str)
    }

    pub fn has_whole(&self, store: &str, group: u32) -> bool {
        self.disks.get(store).is_some_and(|disk| disk.is_whole(group))
    }

    /// Bytes of a group's blocks that are not as they should be.
    pub fn differs(&self, store: &str, group: u32) -> u64 {
        self.disks.get(store).map_or(0, |disk| u64::from(PARTS - disk.held(group).good) * BYTES)
    }

    /// It said lately that it is full, and so gets nothing for a minute.
    pub fn rests(&self, store: &str, now: u64) -> bool {
        self.disks.get(store).and_then(|disk| disk.told_full).is_some_and(|at| now < at + RESTS)
    }

    pub fn peers_told(&self, pod: u64, nonce: u64, group: u32) -> &[Peer] {
        self.access.get(&(pod, nonce, group)).map_or(&[], Vec::as_slice)
    }

    pub fn are_loading(&self) -> bool {
        !self.loading.is_empty()
    }
}

impl World {
    fn groups(&self) -> u32 {
        blocks::groups(self.scenario.shards)
    }

    /// Where the store of a pod lies: on its machine, or in the pod itself.
    fn disk_of(&self, pod: u64) -> Option<String> {
        let Pod { machine, store, .. } = self.pods.get(&pod)?;
        if let Some(store) = store.as_ref().filter(|_| self.scenario.calm) {
            return Some(store.clone());
        }
        let machine = (*machine)?;
        let mine = self.pods.values().filter(|other| other.machine == Some(machine)).count() > 1;
        let shared = self.scenario.disks_stay && !mine;
        Some(if shared { format!("machine-{machine}") } else { format!("pod-{pod}") })
    }

    /// The store of a process that begins. What it has may not be what it was.
    pub fn host(&mut self, pod: u64) -> Option<Host> {
        self.scenario.blocks?;
        let store = self.disk_of(pod)?;
        let (now, groups, tried, healed) = (self.now, self.groups(), self.is_on_trial(&store), self.is_healed());
        let Disks { disks, chance, .. } = &mut self.disks;
        let disk = disks.entry(store.clone()).or_default();
        if (chance.once_in(3) && !healed || tried) && !disk.replicas.is_empty() {
            for group in 0..groups {
                if chance.once_in(4) && !(tried && disk.held(group).good == 0) {
                    if disk.is_whole(group) {
                        disk.damaged.insert(group, now);
                    }
                    match chance.below(3) {
                        0 => disk.replicas.insert((group, 0), Replica::Stale),
                        1 => disk.replicas.insert((group, 1), Replica::Corrupt),
                        _ => disk.replicas.remove(&(group, 0)),
                    };
                }
            }
            self.tally.visit("a disk is back and not as it was");
        }
        let persistent = store.starts_with("machine");
        Some(Host { address: format!("{pod}:1"), store, public_key: vec![], persistent, capacity: 1 << 30 })
    }

    /// The shell knows the plan, and looks through its store: sometimes by another plan first.
    pub fn look_through(&mut self, pod: u64, nonce: u64) -> Option<Event> {
        self.scenario.blocks?;
        let other = self.disks.chance.once_in(5) && !self.is_healed();
        if other {
            self.tally.visit("a disk is of another plan");
            self.after(300, Turn::LooksThrough { pod, nonce });
        }
        let plan = if other { "blake3:other" } else { PLAN };
        self.inventory(pod, plan)
    }

    pub fn looks_through(&mut self, pod: u64, nonce: u64) {
        if let Some(event) = self.inventory(pod, PLAN) {
            self.process_hears(pod, nonce, Some(event));
        }
    }

    /// Of a run whose copies are judged when the faults have ended.
    fn is_healed(&self) -> bool {
        self.scenario.calm && self.now >= FAULTS_END
    }

    fn inventory(&self, pod: u64, plan: &str) -> Option<Event> {
        let disk = self.disks.disks.get(self.pods.get(&pod)?.store.as_ref()?)?;
        let groups =
            (0..self.groups()).map(|group| disk.held(group)).filter(|held| held.good + held.stale + held.corrupt > 0);
        Some(Event::Stocked(Holdings {
            plan: plan.into(),
            full: true,
            free: 1 << 20,
            groups: groups.collect(),
            ended: vec![],
        }))
    }

    /// What a worker does about an order.
    pub fn do_with_blocks(&mut self, pod: u64, nonce: u64, order: BlockOrder) -> Option<Event> {
        let store = self.pods.get(&pod)?.store.clone()?;
        match order {
            BlockOrder::Load { group, order, from, source, .. } => {
                self.disks.last += 1;
                let number = self.disks.last;
                self.disks.loading.insert(number, Loading { group, order, from, source });
                let wait = 20 + self.disks.chance.below(300);
                self.after(wait, Turn::Loaded { pod, nonce, number });
                None
            }
            BlockOrder::Drop { group, what } => {
                let disk = self.disks.disks.get_mut(&store)?;
                disk.replicas
                    .retain(|(of, _), replica| *of != group || what == Dropped::Outdated && *replica == Replica::Good);
                self.tally.visit("replicas dropped");
                let groups = vec![self.disks.disks.get(&store)?.held(group)];
                Some(self.news(groups, vec![]))
            }
            BlockOrder::Access { group, from, .. } => {
                self.disks.access.insert((pod, nonce, group), from);
                None
            }
        }
    }

    fn news(&self, groups: Vec<GroupHeld>, ended: Vec<LoadEnd>) -> Event {
        Event::Stocked(Holdings { plan: PLAN.into(), full: false, free: 1 << 20, groups, ended })
    }

    /// A worker lives there and has the group.
    pub fn serves(&self, peer: &Peer, group: u32) -> bool {
        let pod = self.pods.values().find(|pod| pod.uid == peer.pod && pod.process.is_some());
        pod.and_then(|pod| pod.store.as_ref()).is_some_and(|store| self.disks.has_whole(store, group))
    }

    /// A load is over: only what differs has moved.
    pub fn loaded(&mut self, pod: u64, nonce: u64, number: u64) {
        let Some(Loading { group, order, from, source }) = self.disks.loading.remove(&number) else { return };
        if self.process(pod, nonce).is_none() {
            return;
        }
        let Some(store) = self.pods.get(&pod).and_then(|pod| pod.store.clone()) else { return };
        let served = from.iter().any(|peer| self.serves(peer, group));
        let source = source && !self.source_is_gone();
        let (now, healed) = (self.now, self.is_healed());
        let Some(disk) = self.disks.disks.get_mut(&store) else { return };
        if self.disks.chance.once_in(40) && !healed {
            disk.full_until = now + 2000;
        }
        let fails = self.disks.chance.once_in(20) && !healed;
        let missing = u64::from(PARTS - disk.held(group).good) * BYTES;
        let reason = match (now < disk.full_until, (served || source) && !fails) {
            (true, _) => Some(Trouble::FULL),
            (false, false) => Some(Trouble::NO_COPY),
            (false, true) => None,
        };
        if reason == Some(Trouble::FULL) {
            disk.told_full = Some(now);
        }
        let bytes = if reason.is_none() { missing } else { 0 };
        if reason.is_none() {
            (0..PARTS).for_each(|part| {
                disk.replicas.insert((group, part), Replica::Good);
            });
        }
        let groups = vec![disk.held(group)];
        self.disks.moved += bytes;
        self.trial_moves(&store, group, bytes);
        self.tally.visit(match (reason, served) {
            (Some(Trouble::FULL), _) => "a disk was full",
            (Some(_), _) => "no copy could be read",
            (None, true) => "a group came from a peer",
            (None, false) => "a group came from the source",
        });
        let trouble = reason.map(|reason| Trouble { reason: reason.into(), message: "as the model has it".into() });
        let (from_peers, from_source) = if served { (bytes, 0) } else { (0, bytes) };
        let event = self.news(groups, vec![LoadEnd { group, order, from_peers, from_source, trouble }]);
        self.process_hears(pod, nonce, Some(event));
    }

    /// A desk hears of a store.
    pub fn note_holdings(&mut self, desk: u64, pod: u64, report: &Report) {
        let Some(store) = self.pods.get(&pod).and_then(|pod| pod.store.clone()) else { return };
        self.disks.heard.insert((desk, store.clone()), self.now);
        let Some(holdings) = &report.holdings else { return };
        if holdings.full && holdings.plan == PLAN {
            self.trial_hears(&store);
        }
        if holdings.full {
            self.disks.told.retain(|(of, id, _), _| *of != desk || *id != store);
        }
        self.disks.plans.insert((desk, store.clone()), holdings.plan.clone());
        for held in &holdings.groups {
            self.disks.told.insert((desk, store.clone(), held.group), *held);
        }
    }

    /// Where a store lies, if that is still known.
    fn machine_of(&self, store: &str) -> Option<usize> {
        match store.split_once('-')? {
            ("machine", place) => place.parse().ok(),
            (_, pod) => self.pods.get(&pod.parse().ok()?)?.machine,
        }
    }

    /// Of the machines whose stores a desk knows, more than one and more than a quarter are silent since so long that it
    /// must have seen that, and neither they nor, before that, their workers since so long that they are gone for good.
    fn may_be_the_network(&self, desk: u64) -> bool {
        let known = self.disks.plans.keys().filter(|(of, _)| *of == desk);
        let mut machines: BTreeMap<usize, u64> = BTreeMap::new();
        for key in known {
            let Some(machine) = self.machine_of(&key.1) else { return false };
            let heard = self.disks.heard.get(key).copied().unwrap_or_default();
            let latest = machines.entry(machine).or_default();
            *latest = heard.max(*latest);
        }
        let silent = |(place, heard): &(&usize, &u64)| {
            let machine = &self.machines[**place];
            let since = self.now.saturating_sub(machine.silent_from);
            self.now < machine.silent_until && (SEEN..GONE).contains(&since) && self.now < **heard + GONE
        };
        let away = machines.iter().filter(silent).count();
        away > 1 && away * 4 > machines.len()
    }

    /// What is promised of orders about blocks, at the moment they are given.
    pub fn check_blocks(&mut self, desk: u64, session: SessionId, orders: &Orders) {
        let Some(wanted) = self.scenario.blocks else { return };
        let Some(pod) = self.streams.get(&session.0).map(|stream| stream.pod) else { return };
        let Some(own) = self.pods.get(&pod).and_then(|pod| pod.store.clone()) else { return };
        let told = |store: &str, group: u32| {
            let plan = self.disks.plans.get(&(desk, store.to_owned())).is_some_and(|plan| plan == PLAN);
            self.disks.told.get(&(desk, store.to_owned(), group)).filter(|_| plan).copied()
        };
        let is_whole = |store: &str, group: u32| told(store, group).is_some_and(|held| held.good == held.blocks);
        let peers = |from: &[Peer], group: u32| {
            for peer in from {
                let store = self.pods.values().find(|pod| pod.uid == peer.pod).and_then(|pod| pod.store.clone());
                let whole = store.as_ref().is_none_or(|store| is_whole(store, group));
                assert!(
                    whole,
                    "I34 good copies are read: group {group} is to be read at {peer:?}, which has {store:?}"
                );
            }
        };
        let network = self.may_be_the_network(desk);
        let mut gone = Vec::new();
        for order in &orders.blocks {
            match order {
                BlockOrder::Access { group, from, .. } => peers(from, *group),
                BlockOrder::Load { group, from, source, .. } => {
                    peers(from, *group);
                    assert!(*source || !network, "I36 no copies in a cut: group {group}");
                    assert!(*source || !from.is_empty(), "I34 good copies are read: group {group} from nobody");
                    assert!(!is_whole(&own, *group), "I35 nothing whole is loaded: '{own}' has all of group {group}");
                }
                BlockOrder::Drop { group, what } => {
                    let good = |(id, disk): (&String, &Disk)| {
                        let lately = disk.damaged.get(group).is_some_and(|at| self.now < at + UNNOTICED);
                        *id != own && (disk.is_whole(*group) || lately)
                    };
                    let others = self.disks.disks.iter().filter(|it| good(*it)).count();
                    let stays = usize::from(*what == Dropped::Outdated && is_whole(&own, *group));
                    assert!(
                        others + stays >= wanted as usize,
                        "I7 enough copies stay: of group {group} '{own}' is to drop {what:?}, and {others} others have it"
                    );
                    if *what == Dropped::Surplus {
                        gone.push((desk, own.clone(), *group));
                    }
                }
            }
        }
        if orders.blocks.iter().any(|order| matches!(order, BlockOrder::Load { .. })) {
            self.trial_orders();
        }
        // It is not to be read from now on.
        for key in gone {
            self.disks.told.remove(&key);
        }
    }
}
