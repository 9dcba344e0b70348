//! Promises, kept on a real cluster.
//!
//! | file | what |
//! | --- | --- |
//! | `cluster.rs` | reach a cluster; a namespace and a shared volume for each test |
//! | `command.rs` | kubectl and helm, as users have them |
//! | `job.rs` | apply a ShardJob, wait for what it says |
//! | `diary.rs` | everything a job's status said while a test looked |
//! | `fault.rs` | bounded faults, counted |
//! | `control.rs` | operators, API server and etcd: what they count, and being without them |
//! | `process.rs` | processes of pods, where the nodes are on this machine |
//! | `node.rs` | whole nodes: which one to break, cordon, drain, evict |
//! | `stores.rs` | blocks, as they lie on the nodes' disks |
//! | `oracle.rs` | the right answer, from the files themselves |
//! | `image.rs` | the images of programs that promises run |
//! | `harness.rs` | runs promises side by side, and some alone |
//! | `diagnosis.rs` | what the cluster was doing when a promise broke |

pub mod cluster;
pub mod command;
pub mod control;
pub mod diagnosis;
pub mod diary;
pub mod fault;
pub mod harness;
pub mod image;
pub mod job;
pub mod node;
pub mod oracle;
pub mod process;
pub mod stores;

/// A promise that was not kept, or a cluster that could not be asked.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a test returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Ends a test with a message unless something holds.
///
/// # Errors
/// With the message, when it does not hold.
pub fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(message().into()) }
}
