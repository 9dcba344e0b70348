//! Where blocks are kept, as the operator sets it when it makes the pod. Without a folder none are.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, Args};

/// Of the block store.
#[derive(Clone, Debug, Args)]
pub struct BlockSettings {
    /// Folder for blocks of the input, on a volume. Without it this worker keeps none
    #[arg(long, env = "HYPERFLOW_BLOCKS_DIR")]
    pub blocks_dir: Option<PathBuf>,
    /// Address where other workers of the job read blocks
    #[arg(long, env = "HYPERFLOW_BLOCKS_LISTEN", default_value = "0.0.0.0:7701")]
    pub blocks_listen: SocketAddr,
    /// IP address of this pod, by which other workers reach it
    #[arg(long, env = "HYPERFLOW_POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Whether the volume outlives the pod
    #[arg(long, env = "HYPERFLOW_BLOCKS_PERSISTENT", default_value = "false", action = ArgAction::Set)]
    pub blocks_persistent: bool,
    /// Most bytes of blocks. Default: what is free, less a twentieth of the file system
    #[arg(long, env = "HYPERFLOW_BLOCKS_LIMIT")]
    pub blocks_limit: Option<u64>,
    /// Most bytes a second that are copied from other workers; 0 for no limit. What a task waits for is not limited
    #[arg(long, env = "HYPERFLOW_BLOCKS_RATE", default_value_t = 0)]
    pub blocks_rate: u64,
}
