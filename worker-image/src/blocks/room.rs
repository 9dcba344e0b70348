//! How many bytes the store may have: what is to be written is reserved first.

use std::sync::{Arc, Mutex};

use super::error::BlockError;
use crate::work::locked;

/// Bytes that are in use, and most of them.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: Mutex<u64>,
}

/// Bytes that somebody is about to write. Given back when dropped, unless they were kept.
#[derive(Debug)]
pub struct Reserved {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    /// With so many bytes in use.
    pub fn new(limit: u64, used: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(used) })
    }

    /// Reserves bytes for a replica.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, BlockError> {
        let mut used = locked(&self.used);
        if used.saturating_add(bytes) > self.limit {
            return Err(BlockError::NoRoom { wanted: bytes, used: *used, limit: self.limit });
        }
        *used += bytes;
        Ok(Reserved { room: self.clone(), bytes })
    }

    /// A replica of so many bytes was removed.
    pub fn give_back(&self, bytes: u64) {
        let mut used = locked(&self.used);
        *used = used.saturating_sub(bytes);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        *locked(&self.used)
    }

    /// Bytes that more replicas may take.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used())
    }

    /// Most bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl Reserved {
    /// None at all, for what is no replica.
    pub fn nothing(room: &Arc<Room>) -> Self {
        Self { room: room.clone(), bytes: 0 }
    }

    /// The bytes are written, and stay.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_in_use_until_it_is_given_back() {
        let room = Room::new(100, 40);
        let first = room.reserve(50).unwrap();
        assert!(room.reserve(11).unwrap_err().is_full());
        assert_eq!(room.free(), 10);
        drop(first);
        room.reserve(60).unwrap().keep();
        assert_eq!((room.used(), room.free()), (100, 0));
        room.give_back(30);
        assert_eq!(room.free(), 30);
    }
}
