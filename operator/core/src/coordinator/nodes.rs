//! Nodes: which take new leases, and which have failed too often.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Coordinator, Effect, Node, Pod};
use crate::{Now, blocks::Zones, causes::Cause};

/// What a lost worker and a failed attempt add to the score of their node.
pub(super) const LOSS: u64 = 1000;
pub(super) const FAILURE: u64 = 250;

/// A node with this score gets no new leases while another has workers. Three lost workers within minutes.
const FAILING: u64 = 2500;

/// A score halves in this time, so that a node is trusted again some five to ten minutes after its last failure.
const HALF_LIFE_MILLIS: u64 = 300_000;

#[derive(Clone, Copy, Debug)]
struct Score {
    points: u64,
    at: u64,
}

impl Score {
    /// The points that are left: halved with each half-life, and on a straight line in between.
    fn now(self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.at);
        let halved = self.points.checked_shr(u32::try_from(elapsed / HALF_LIFE_MILLIS).unwrap_or(u32::MAX));
        let halved = halved.unwrap_or(0);
        halved - halved * (elapsed % HALF_LIFE_MILLIS) / (2 * HALF_LIFE_MILLIS)
    }
}

/// What is known of nodes: by the cluster, by the pods on them, and by how shards fared there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    /// None until the cluster has told: where nodes may not be read, every one is taken to be sound.
    seen: Option<BTreeMap<String, Node>>,
    scores: BTreeMap<String, Score>,
    /// Where they are.
    pub(super) zones: Arc<Zones>,
}

impl Nodes {
    /// Why a node takes no new leases, in the cluster's words. Pods on it do not count as workers to come.
    pub(crate) fn unfit(&self, name: &str) -> Option<&str> {
        let seen = self.seen.as_ref()?;
        match seen.get(name) {
            // Nobody has said yet which node it is.
            None if name.is_empty() => None,
            None => Some("NodeDeleted"),
            // When none is ready it is the API server that was away and has not heard of them yet: Kubernetes evicts nobody
            // then either.
            Some(node) if !node.ready && seen.values().any(|other| other.ready) => Some("NodeNotReady"),
            Some(node) if node.cordoned => Some("NodeCordoned"),
            Some(node) => node.pressure.as_deref(),
        }
    }

    /// Why the processes of a node count as lost with it.
    pub(super) fn gone(&self, name: &str) -> Option<Cause> {
        self.unfit(name)
            .filter(|reason| matches!(*reason, "NodeDeleted" | "NodeNotReady"))
            .map(|reason| Cause::of_node(reason, name))
    }

    /// Pods say in which zones their nodes are: that needs no right to read nodes.
    pub(super) fn learn_zones<'a>(&mut self, pods: impl Iterator<Item = &'a Pod>) {
        for pod in pods {
            if let (Some(node), Some(zone)) = (&pod.node, &pod.zone) {
                Arc::make_mut(&mut self.zones).learn(node, zone);
            }
        }
    }

    /// Something failed on a node.
    pub(super) fn charge(&mut self, now: u64, name: &str, points: u64) {
        if !name.is_empty() {
            let before = self.score(now, name);
            self.scores.insert(name.into(), Score { points: before.saturating_add(points), at: now });
        }
    }

    fn score(&self, now: u64, name: &str) -> u64 {
        self.scores.get(name).map_or(0, |score| score.now(now))
    }

    /// Of these nodes, those that failed too often lately: never all of them, for then it is not the nodes.
    pub(super) fn failing<'a>(&self, now: u64, names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
        if self.scores.is_empty() {
            return BTreeSet::new();
        }
        let names: BTreeSet<&str> = names.collect();
        let failing: BTreeSet<&str> = names.iter().copied().filter(|name| self.score(now, name) >= FAILING).collect();
        if failing.len() == names.len() { BTreeSet::new() } else { failing }
    }
}

impl Coordinator {
    pub(super) fn nodes_seen(&mut self, now: Now, nodes: Vec<Node>, effects: &mut Vec<Effect>) {
        let nodes: BTreeMap<String, Node> = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        if self.nodes.seen.as_ref() == Some(&nodes) {
            return;
        }
        self.nodes.seen = Some(nodes);
        self.blocks.stir();
        self.acquit_by_nodes(now);
        effects.push(Effect::LookAtPool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_halves_and_is_forgotten() {
        let mut nodes = Nodes::default();
        (0..3).for_each(|_| nodes.charge(0, "a", LOSS));
        let failing = |now| nodes.failing(now, ["a", "b"].into_iter()).contains("a");
        assert!(failing(0) && failing(60_000) && !failing(120_000));
        assert_eq!(nodes.score(HALF_LIFE_MILLIS, "a"), 1500);
        assert_eq!(nodes.score(HALF_LIFE_MILLIS * 3 / 2, "a"), 1125);
        assert_eq!(nodes.score(HALF_LIFE_MILLIS * 100, "a"), 0);
    }

    #[test]
    fn when_all_nodes_fail_it_is_not_the_nodes() {
        let mut nodes = Nodes::default();
        (0..9).for_each(|_| nodes.charge(0, "a", LOSS));
        assert!(nodes.failing(0, ["a"].into_iter()).is_empty());
        assert_eq!(nodes.failing(0, ["a", "b"].into_iter()), BTreeSet::from(["a"]));
    }

    #[test]
    fn an_unknown_cluster_has_sound_nodes_and_a_known_one_names_what_is_wrong() {
        let mut nodes = Nodes::default();
        assert_eq!(nodes.unfit("a"), None);
        let sound = Node { name: "a".into(), ready: true, cordoned: false, pressure: None };
        let other = Node { name: "c".into(), ..sound.clone() };
        let says = |node: Node, nodes: &mut Nodes| {
            nodes.seen = Some(BTreeMap::from([("a".to_owned(), node), ("c".to_owned(), other.clone())]));
            nodes.unfit("a").map(str::to_owned)
        };
        assert_eq!(says(sound.clone(), &mut nodes), None);
        assert_eq!(says(Node { cordoned: true, ..sound.clone() }, &mut nodes).as_deref(), Some("NodeCordoned"));
        assert!(nodes.gone("a").is_none(), "a cordoned node still works");
        let pressed = Node { pressure: Some("MemoryPressure".into()), ..sound.clone() };
        assert_eq!(says(pressed, &mut nodes).as_deref(), Some("MemoryPressure"));
        assert_eq!(says(Node { ready: false, ..sound.clone() }, &mut nodes).as_deref(), Some("NodeNotReady"));
        assert!(nodes.gone("a").is_some() && nodes.gone("b").is_some());
        nodes.seen = Some(BTreeMap::from([("a".to_owned(), Node { ready: false, ..sound })]));
        assert_eq!(nodes.unfit("a"), None, "when none is heard of, it is not the nodes");
    }
}
