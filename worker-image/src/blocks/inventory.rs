//! What the store has of the plan's groups.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{ids::ShardIndex, replica::GroupHeld};
use hyperflow_core::blocks::{Block, blocks_of, group_of, shards_of};

use super::{
    disk::{Disk, Found},
    error::BlockError,
    replica::{Head, Name},
};
use crate::plan_file::PlanFile;

/// What a file in the store is to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Of the plan's version, and as its header says.
    Good(Head),
    /// Of another version, or of a block that is not in the plan.
    Stale,
    /// Damaged.
    Corrupt,
}

/// What a file is, given what its sound header says.
pub fn standing(planned: Option<&Block>, found: &Found, head: Option<Head>) -> Standing {
    let current = planned.filter(|block| block.version == found.name.version);
    match (current, head) {
        _ if found.corrupt => Standing::Corrupt,
        (None, Some(_)) => Standing::Stale,
        (Some(block), Some(head)) if head.length == block.length => Standing::Good(head),
        _ => Standing::Corrupt,
    }
}

/// One group, file by file.
#[derive(Debug, Default)]
pub struct View {
    /// What the operator is told.
    pub held: GroupHeld,
    /// Good replicas.
    pub good: BTreeSet<Name>,
    /// Stale and corrupt ones.
    pub outdated: Vec<Found>,
}

impl View {
    /// Outdated replicas of blocks of which there is a good one.
    pub fn replaced(&self) -> impl Iterator<Item = &Found> {
        let good: BTreeSet<(ShardIndex, u32)> = self.good.iter().map(|name| (name.shard, name.part)).collect();
        self.outdated.iter().filter(move |found| good.contains(&(found.name.shard, found.name.part)))
    }
}

/// Compares a group's folder with the blocks that the plan has in it.
pub fn view(disk: &Disk, group: u32, planned: &[Block]) -> Result<View, BlockError> {
    let blocks = u32::try_from(planned.len()).unwrap_or(u32::MAX);
    let mut view = View { held: GroupHeld { group, blocks, ..GroupHeld::default() }, ..View::default() };
    let planned: BTreeMap<_, _> = planned.iter().map(|block| ((block.shard, block.part), block)).collect();
    for found in disk.list(group)? {
        let head = match disk.head(&found.name) {
            _ if found.corrupt => None,
            Ok(head) => head,
            Err(BlockError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let block = planned.get(&(found.name.shard, found.name.part)).copied();
        match standing(block, &found, head) {
            Standing::Good(head) => {
                view.held.good += 1;
                view.held.bytes += head.length;
                view.held.digest ^= head.digest();
                view.good.insert(found.name);
                continue;
            }
            Standing::Stale => view.held.stale += 1,
            Standing::Corrupt => view.held.corrupt += 1,
        }
        view.outdated.push(found);
    }
    Ok(view)
}

/// The plan's blocks of a group.
pub fn planned(plan: &PlanFile, group: u32) -> Result<Vec<Block>, BlockError> {
    let mut blocks = Vec::new();
    let all = shards_of(group, plan.plan().shards());
    let read = plan.some(all, |index, shard| {
        blocks.extend(blocks_of(index, shard));
        Ok(())
    });
    read.map_err(BlockError::Source)?;
    Ok(blocks)
}

/// Every group of which anything is there. The plan is read once, and no more than a group of it is held.
pub fn survey(disk: &Disk, plan: &PlanFile) -> Result<Vec<GroupHeld>, BlockError> {
    let there: BTreeSet<u32> = disk.groups()?.into_iter().collect();
    let shards = plan.plan().shards();
    let mut held = Vec::new();
    let mut current: Option<(u32, Vec<Block>)> = None;
    let mut look = |group: Option<(u32, Vec<Block>)>| -> Result<(), BlockError> {
        if let Some((group, blocks)) = group {
            held.push(view(disk, group, &blocks)?.held);
        }
        Ok(())
    };
    let mut failed = None;
    let read = plan.each(|index, shard| {
        let group = group_of(index, shards);
        if current.as_ref().is_none_or(|(current, _)| *current != group) {
            let before = current.take();
            if let Err(error) = look(before) {
                failed.get_or_insert(error);
            }
            current = there.contains(&group).then(|| (group, Vec::new()));
        }
        if let Some((_, blocks)) = &mut current {
            blocks.extend(blocks_of(index, shard));
        }
        Ok(())
    });
    read.map_err(BlockError::Source)?;
    look(current.take())?;
    match failed {
        Some(error) => Err(error),
        None => Ok(held),
    }
}
