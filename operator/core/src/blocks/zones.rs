//! Zones: which nodes fail together. Copies of a group are kept apart, and each is read by those that are near it.
//!
//! A node of which no zone is known has none in common with any other: then all is as if there were no zones.

use std::collections::{BTreeMap, BTreeSet};

/// How near two nodes are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// In different zones, as far as is known.
    Apart,
    /// In one zone.
    Zone,
    /// They are the same.
    Node,
}

/// Which zone each node is in, by name. No two regions have zones of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zones(BTreeMap<String, String>);

impl Zones {
    /// Where a node is. It stays known when nobody says so any more: nodes do not move.
    pub(crate) fn learn(&mut self, node: &str, zone: &str) {
        if self.0.get(node).is_none_or(|known| known != zone) {
            self.0.insert(node.into(), zone.into());
        }
    }

    pub(super) fn between(&self, one: &str, other: &str) -> Nearness {
        let zone = |node: &str| self.0.get(node);
        match zone(one) {
            _ if one == other => Nearness::Node,
            Some(here) if zone(other) == Some(here) => Nearness::Zone,
            _ => Nearness::Apart,
        }
    }

    /// No other is in the zone of this node, as far as is known, or the same.
    pub(super) fn is_apart<'a>(&self, node: &str, mut others: impl Iterator<Item = &'a str>) -> bool {
        others.all(|other| self.between(node, other) == Nearness::Apart)
    }

    /// How many zones these nodes are in. One of which none is known counts as one of its own.
    pub(super) fn count<'a>(&self, nodes: impl Iterator<Item = &'a str>) -> usize {
        let mut apart: Vec<&str> = Vec::new();
        for node in nodes {
            if self.is_apart(node, apart.iter().copied()) {
                apart.push(node);
            }
        }
        apart.len()
    }

    /// Of candidates and their nodes, best first, those for so many more copies beside the ones on `nodes`. Who is in a
    /// zone without a copy goes first, so that copies are in as many zones as there may be.
    pub(super) fn choose<T>(&self, candidates: Vec<(T, &str)>, nodes: &BTreeSet<String>, copies: usize) -> Vec<T> {
        let mut taken: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let (mut left, mut chosen) = (candidates, Vec::new());
        while chosen.len() < copies && !left.is_empty() {
            let place = left.iter().position(|(_, node)| self.is_apart(node, taken.iter().copied())).unwrap_or(0);
            let (candidate, node) = left.remove(place);
            taken.push(node);
            chosen.push(candidate);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes `a1`, `a2` and so on are in zone `a`, and so are those of other letters; of `x1` nothing is known.
    fn zones() -> Zones {
        let mut zones = Zones::default();
        for node in ["a1", "a2", "a3", "b1", "b2", "c1"] {
            zones.learn(node, &node[..1]);
        }
        zones
    }

    fn chosen(candidates: &[&'static str], nodes: &[&str], copies: usize) -> Vec<&'static str> {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        zones().choose(candidates.iter().map(|node| (*node, *node)).collect(), &nodes, copies)
    }

    #[test]
    fn what_is_not_known_is_apart_from_all_others() {
        let between = |one, other| zones().between(one, other);
        assert_eq!(between("a1", "a2"), Nearness::Zone);
        assert_eq!(between("a1", "b1"), Nearness::Apart);
        assert_eq!(
            (between("a1", "x1"), between("x1", "a1"), between("x1", "x2")),
            (Nearness::Apart, Nearness::Apart, Nearness::Apart)
        );
        assert_eq!((between("a1", "a1"), between("x1", "x1")), (Nearness::Node, Nearness::Node));
        assert_eq!(zones().count(["a1", "a2", "b1", "x1", "x2"].into_iter()), 4);
    }

    #[test]
    fn another_zone_goes_first_and_then_what_is_nearest() {
        assert_eq!(chosen(&["a1", "a2", "b1", "b2"], &[], 2), ["a1", "b1"]);
        assert_eq!(chosen(&["a2", "b2", "b1"], &["a1"], 1), ["b2"]);
        assert_eq!(chosen(&["a2", "a3", "x1"], &["a1"], 1), ["x1"], "it may be in another zone");
        assert_eq!(chosen(&["a1", "a2", "b1", "c1"], &[], 3), ["a1", "b1", "c1"]);
    }

    #[test]
    fn with_fewer_zones_than_copies_all_of_them_have_one_and_the_rest_are_where_it_is_nearest() {
        assert_eq!(chosen(&["a1", "a2", "a3", "b1"], &[], 3), ["a1", "b1", "a2"]);
        assert_eq!(chosen(&["a2", "a3"], &["a1"], 2), ["a2", "a3"]);
        assert_eq!(chosen(&["a2"], &["a1"], 2), ["a2"]);
    }

    #[test]
    fn without_zones_the_nearest_are_chosen() {
        let nodes: BTreeSet<String> = ["a1".to_owned()].into();
        let candidates = vec![(1, "a2"), (2, "a3"), (3, "b1")];
        assert_eq!(Zones::default().choose(candidates, &nodes, 2), [1, 2]);
    }
}
