//! What can go wrong with blocks, and what the operator is told of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use hyperflow_api::{message::Failure, replica::Trouble};
use rustix::io::Errno;

use crate::{fault::Fault, logs};

/// A block cannot be had, kept or given.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The limit leaves no room.
    #[error("cannot keep {wanted} more bytes of blocks: {used} of {limit} are in use")]
    NoRoom {
        /// Bytes that were to be written.
        wanted: u64,
        /// Bytes that are there or being written.
        used: u64,
        /// Most bytes.
        limit: u64,
    },
    /// The store did not do as asked.
    #[error("cannot {doing} '{}'", path.display())]
    Disk {
        /// What was being done: "write".
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A replica is not what it says.
    #[error("the replica '{}' is damaged: {why}", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// None of the peers gave it, and the source was not to be asked.
    #[error("no worker has block {part} of shard {shard}{}", last.as_ref().map(|last| format!(" (last: {last})")).unwrap_or_default())]
    NoCopy {
        /// Of this shard.
        shard: u32,
        /// Which of its blocks.
        part: u32,
        /// What the last peer said.
        last: Option<String>,
    },
    /// The source or the plan could not be read.
    #[error("cannot read a block where its input is")]
    Source(#[source] Fault),
    /// The order was replaced by another one.
    #[error("the order was taken back")]
    Cancelled,
    /// What this worker shows to others, or the address it was to listen on, is not there.
    #[error("cannot {doing}: {why}")]
    Peers {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        why: String,
    },
}

/// Makes an error of the store.
pub fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlockError {
    move |source| BlockError::Disk { doing, path: path.into(), source }
}

impl BlockError {
    /// Whether there is no room, by our limit or by the volume's.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Disk { source, .. } => {
                matches!(Errno::from_io_error(source), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
            }
            _ => false,
        }
    }

    /// What the operator is told: nothing if it has taken the order back.
    pub fn trouble(&self) -> Option<Trouble> {
        let reason = match self {
            _ if self.is_full() => Trouble::FULL,
            Self::NoRoom { .. } => Trouble::FULL,
            Self::Disk { .. } | Self::Damaged { .. } => Trouble::DISK,
            Self::NoCopy { .. } | Self::Peers { .. } => Trouble::NO_COPY,
            Self::Source(fault) if is_change(fault) => Trouble::CHANGED,
            Self::Source(_) => Trouble::UNREACHABLE,
            Self::Cancelled => return None,
        };
        let text = logs::causes(self);
        // As much as a message on the wire may have.
        let message = text[..text.floor_char_boundary(900)].into();
        Some(Trouble { reason: reason.into(), message })
    }
}

/// Whether the source is there and is not what was planned.
pub fn is_change(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused(failure) if is_changed_input(failure))
}

fn is_changed_input(failure: &Failure) -> bool {
    failure.reason == "InputChanged"
}
