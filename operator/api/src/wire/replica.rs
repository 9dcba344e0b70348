//! Messages about blocks on the wire.

use super::{WireError, bounded, need, p};
use crate::{ids::MAX_SHARDS, replica as r};

/// Groups of a job at most: no shard is in more than one.
const GROUPS: u32 = MAX_SHARDS;

fn group(group: u32) -> Result<u32, WireError> {
    if group < GROUPS { Ok(group) } else { Err(WireError::Shard(group)) }
}

impl From<r::Host> for p::Host {
    fn from(r::Host { store, address, public_key, persistent, capacity }: r::Host) -> Self {
        Self { store, address, public_key, persistent, capacity }
    }
}

impl TryFrom<p::Host> for r::Host {
    type Error = WireError;

    fn try_from(p::Host { store, address, public_key, persistent, capacity }: p::Host) -> Result<Self, WireError> {
        // Stands in the status between marks of ours.
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if store.is_empty() || store.len() > 64 || !plain(&store) {
            return Err(WireError::Missing("the store's UUID"));
        }
        Ok(Self { store, address: bounded("address", address)?, public_key, persistent, capacity })
    }
}

impl From<r::Holdings> for p::Holdings {
    fn from(r::Holdings { plan, full, free, groups, ended }: r::Holdings) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        Self { plan, full, free, groups, ended: ended.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<p::Holdings> for r::Holdings {
    type Error = WireError;

    fn try_from(p::Holdings { plan, full, free, groups, ended }: p::Holdings) -> Result<Self, WireError> {
        let groups = groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let ended = ended.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Self { plan: bounded("plan digest", plan)?, full, free, groups, ended })
    }
}

impl From<r::GroupHeld> for p::GroupHeld {
    fn from(held: r::GroupHeld) -> Self {
        let r::GroupHeld { group, blocks, good, stale, corrupt, digest, bytes } = held;
        Self { group, blocks, good, stale, corrupt, digest, bytes }
    }
}

impl TryFrom<p::GroupHeld> for r::GroupHeld {
    type Error = WireError;

    fn try_from(held: p::GroupHeld) -> Result<Self, WireError> {
        let p::GroupHeld { group: number, blocks, good, stale, corrupt, digest, bytes } = held;
        Ok(Self { group: group(number)?, blocks, good, stale, corrupt, digest, bytes })
    }
}

impl From<r::LoadEnd> for p::LoadEnd {
    fn from(r::LoadEnd { group, order, from_peers, from_source, trouble }: r::LoadEnd) -> Self {
        let trouble = trouble.map(|r::Trouble { reason, message }| p::Trouble { reason, message });
        Self { group, order, from_peers, from_source, trouble }
    }
}

impl TryFrom<p::LoadEnd> for r::LoadEnd {
    type Error = WireError;

    fn try_from(end: p::LoadEnd) -> Result<Self, WireError> {
        let p::LoadEnd { group: number, order, from_peers, from_source, trouble } = end;
        let trouble = trouble.map(trouble_of).transpose()?;
        Ok(Self { group: group(number)?, order, from_peers, from_source, trouble })
    }
}

fn trouble_of(p::Trouble { reason, message }: p::Trouble) -> Result<r::Trouble, WireError> {
    if !super::is_reason(&reason) {
        return Err(WireError::Reason);
    }
    Ok(r::Trouble { reason, message: bounded("message", message)? })
}

impl From<r::Peer> for p::Peer {
    fn from(r::Peer { pod, address }: r::Peer) -> Self {
        Self { pod, address }
    }
}

impl From<p::Peer> for r::Peer {
    fn from(p::Peer { pod, address }: p::Peer) -> Self {
        Self { pod, address }
    }
}

impl From<r::BlockOrder> for p::BlockOrder {
    fn from(order: r::BlockOrder) -> Self {
        use p::block_order::Order as Wire;
        let peers = |from: Vec<r::Peer>| from.into_iter().map(Into::into).collect();
        let order = match order {
            r::BlockOrder::Load { group, order, from, source, grant } => {
                Wire::Load(p::Load { group, order, from: peers(from), source, grant })
            }
            r::BlockOrder::Drop { group, what } => Wire::Drop(p::Drop { group, surplus: what == r::Dropped::Surplus }),
            r::BlockOrder::Access { group, from, grant } => Wire::Access(p::Access { group, from: peers(from), grant }),
        };
        Self { order: Some(order) }
    }
}

impl TryFrom<p::BlockOrder> for r::BlockOrder {
    type Error = WireError;

    fn try_from(order: p::BlockOrder) -> Result<Self, WireError> {
        use p::block_order::Order as Wire;
        let peers = |from: Vec<p::Peer>| from.into_iter().map(Into::into).collect();
        Ok(match need(order.order, "an order about blocks")? {
            Wire::Load(p::Load { group: number, order, from, source, grant }) => {
                Self::Load { group: group(number)?, order, from: peers(from), source, grant }
            }
            Wire::Drop(p::Drop { group: number, surplus }) => {
                let what = if surplus { r::Dropped::Surplus } else { r::Dropped::Outdated };
                Self::Drop { group: group(number)?, what }
            }
            Wire::Access(p::Access { group: number, from, grant }) => {
                Self::Access { group: group(number)?, from: peers(from), grant }
            }
        })
    }
}
