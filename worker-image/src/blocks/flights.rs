//! Blocks that are being got: no block is got twice at a time.

use std::{
    collections::BTreeSet,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use hyperflow_api::ids::ShardIndex;

use super::error::BlockError;
use crate::work::locked;

/// Whoever waits looks so often whether it still should.
const NAP: Duration = Duration::from_millis(200);

/// Which blocks are being got.
#[derive(Debug, Default)]
pub struct Flights {
    busy: Mutex<BTreeSet<(ShardIndex, u32)>>,
    freed: Condvar,
}

/// The right to get one block, until dropped.
#[derive(Debug)]
pub struct Flight<'a> {
    flights: &'a Flights,
    block: (ShardIndex, u32),
}

impl Flights {
    /// Waits until nobody else gets this block.
    pub fn claim(
        &self,
        shard: ShardIndex,
        part: u32,
        go_on: &dyn Fn() -> Result<(), BlockError>,
    ) -> Result<Flight<'_>, BlockError> {
        let mut busy = locked(&self.busy);
        while busy.contains(&(shard, part)) {
            let waited = self.freed.wait_timeout(busy, NAP);
            busy = waited.unwrap_or_else(PoisonError::into_inner).0;
            go_on()?;
        }
        busy.insert((shard, part));
        Ok(Flight { flights: self, block: (shard, part) })
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        locked(&self.flights.busy).remove(&self.block);
        self.flights.freed.notify_all();
    }
}
