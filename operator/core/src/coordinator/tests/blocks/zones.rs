//! Nodes are in zones: where copies are made and read, and which go.

use super::*;

/// Planned; node 1 is in the zone of the first letter, and so on. `x` is none that is known.
fn planned(replicas: u32, zones: &str) -> Blocks {
    let mut blocks = Blocks::planned(replicas);
    let pod = |(number, zone): (u64, char)| Pod { zone: (zone != 'x').then(|| zone.into()), ..pod_on(number) };
    let pods = (1..=4).zip(zones.chars().chain(['x'])).map(pod).collect();
    blocks.desk.handle(Event::PodsSeen(pods));
    blocks
}

fn filled(zones: &str) -> Blocks {
    let mut blocks = planned(2, zones);
    (1..=3).for_each(|number| blocks.tells(number, true, vec![], vec![]));
    let shards = SHARDS as usize;
    assert_eq!(blocks.fill(), (shards, shards), "zones move nothing twice");
    blocks
}

/// The stores that have each group.
fn places(blocks: &Blocks) -> Vec<Vec<u64>> {
    (0..SHARDS).map(|group| blocks.having(group)).collect()
}

#[test]
fn copies_are_in_different_zones() {
    let places = places(&filled("aab"));
    assert!(places.iter().all(|on| on.len() == 2 && on.contains(&3)), "not all are in zone b: {places:?}");
    let alone = |number| places.iter().filter(|on| on.contains(&number)).count();
    assert!(alone(1) > 0 && alone(2) > 0, "one node of zone a has all: {places:?}");
}

#[test]
fn one_zone_is_as_good_as_none_and_a_node_of_which_nothing_is_known_has_its_own() {
    let none = places(&filled("xxx"));
    assert_eq!(places(&filled("aaa")), none);
    assert_eq!(places(&filled("abc")), none, "all are apart");
    assert_eq!(places(&filled("aax")), places(&filled("aab")));
}

#[test]
fn a_copy_is_made_in_the_same_zone_when_there_is_no_other() {
    let mut blocks = filled("aab");
    blocks.leaves(3);
    blocks.passes(62_000, &[1, 2]);
    let (source, peers) = blocks.fill();
    assert_eq!((source, peers, blocks.under()), (0, SHARDS as usize, 0));
    assert!(places(&blocks).iter().all(|on| on.contains(&1) && on.contains(&2)));
    // What came back is one too many: a copy of the zone that has two goes.
    blocks.greet(3);
    blocks.tells(3, true, whole(0..SHARDS), vec![]);
    let drops = blocks.drops();
    assert_eq!(drops.len(), SHARDS as usize);
    assert!(drops.iter().all(|(to, _, what)| *to != 3 && *what == Dropped::Surplus), "{drops:?}");
}

#[test]
fn a_zone_that_comes_late_gets_a_copy_of_each_group_and_one_of_the_others_goes() {
    let mut blocks = planned(2, "aab");
    (1..=2).for_each(|number| blocks.tells(number, true, vec![], vec![]));
    blocks.passes(10_000, &[1, 2]);
    let shards = SHARDS as usize;
    assert_eq!(blocks.fill(), (shards, shards));
    blocks.tells(3, true, vec![], vec![]);
    let (mut orders, mut dropped) = (blocks.orders(), 0);
    assert_eq!(orders.len(), 1, "one at a time, for nothing is lacking: {orders:?}");
    while !orders.is_empty() {
        dropped += orders.iter().filter(|(_, order)| matches!(order, BlockOrder::Drop { .. })).count();
        assert!(dropped <= shards);
        blocks.carries_out(&orders);
        orders = blocks.orders();
    }
    assert_eq!(dropped, shards);
    let places = places(&blocks);
    assert!(places.iter().all(|on| on.len() == 2 && on.contains(&3)), "not all are in zone b: {places:?}");
}

#[test]
fn what_is_left_of_a_copy_is_made_whole_before_another_zone_gets_one() {
    let mut blocks = planned(2, "aab");
    blocks.tells(1, true, whole([0]), vec![]);
    blocks.tells(2, true, vec![held(0, 1, 1, 0)], vec![]);
    blocks.tells(3, true, vec![], vec![]);
    let loads: Vec<u64> = blocks.loads().into_iter().filter(|(_, group)| *group == 0).map(|(to, _)| to).collect();
    assert_eq!(loads, [2], "as much as there was is not moved again");
}

/// Where store 2 is told to get group 0, which stores 1 and 3 have.
fn read_by_two(zones: &str) -> Vec<String> {
    let mut blocks = planned(2, zones);
    blocks.tells(2, true, vec![], vec![]);
    for number in [1, 3] {
        blocks.tells(number, true, whole(0..SHARDS), vec![]);
    }
    blocks.orders();
    let report = Report { capacity: 1, first_number: 1, ..Report::default() };
    blocks.desk.handle(Event::Reported { session: SessionId(2), report });
    blocks.settle();
    let orders = blocks.orders();
    let from = orders.into_iter().find_map(|(to, order)| match order {
        BlockOrder::Access { from, .. } if to == 2 => Some(from),
        _ => None,
    });
    from.unwrap().into_iter().map(|peer| peer.pod).collect()
}

#[test]
fn a_copy_is_read_in_the_zone_of_the_reader_if_one_is_there() {
    assert_eq!(read_by_two("xxx"), ["pod-1", "pod-3"]);
    assert_eq!(read_by_two("aab"), ["pod-1", "pod-3"]);
    assert_eq!(read_by_two("baa"), ["pod-3", "pod-1"]);
}

#[test]
fn copies_come_from_the_same_zone_as_long_as_it_is_not_busy() {
    let mut blocks = planned(4, "baaa");
    blocks.greet(4);
    for number in [1, 3] {
        blocks.tells(number, true, whole(0..SHARDS), vec![]);
    }
    let sources = |(_, order)| match order {
        BlockOrder::Load { from, .. } => Some(from.into_iter().map(|peer| peer.pod).collect::<Vec<_>>()),
        _ => None,
    };
    blocks.tells(2, true, vec![], vec![]);
    let from: Vec<_> = blocks.orders().into_iter().filter_map(sources).collect();
    assert_eq!(from, [["pod-3", "pod-1"], ["pod-3", "pod-1"]]);
    blocks.tells(4, true, vec![], vec![]);
    let from: Vec<_> = blocks.orders().into_iter().filter_map(sources).collect();
    assert_eq!(from, [["pod-1", "pod-3"], ["pod-1", "pod-3"]], "two at a time");
}
