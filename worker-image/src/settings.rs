//! What the operator sets when it makes the pod.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;

use crate::{blocks::settings::BlockSettings, connect::Operator};

/// A worker is gone so long before the kubelet would kill it.
const BEFORE_THE_KUBELET: Duration = Duration::from_millis(500);

/// Takes leases from a Hyperflow operator, runs shards and publishes their results exactly once.
///
/// The operator makes worker pods and sets all of this; nothing has to be set by hand. `hyperflow-worker install PATH`
/// copies this program into a pod of another image.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Settings {
    /// host:port of the operator's headless Service
    #[arg(long, env = "HYPERFLOW_OPERATOR")]
    operator: String,
    /// Name in the operator's certificate
    #[arg(long, env = "HYPERFLOW_TLS_NAME")]
    tls_name: String,
    /// CA of the operator's certificate, PEM
    #[arg(long, env = "HYPERFLOW_CA_FILE", default_value = "/hyperflow/session/ca.crt")]
    ca_file: PathBuf,
    /// Service-account token with the job's audience; read again for each connection
    #[arg(long, env = "HYPERFLOW_TOKEN_FILE", default_value = "/hyperflow/session/token")]
    token_file: PathBuf,
    /// UID of the ShardJob to work for
    #[arg(long, env = "HYPERFLOW_JOB_UID")]
    pub job_uid: String,
    /// UID of this pod
    #[arg(long, env = "HYPERFLOW_POD_UID")]
    pub pod_uid: String,
    /// Node of this pod
    #[arg(long, env = "HYPERFLOW_NODE", default_value = "")]
    pub node: String,
    /// Shards at a time. Each takes a buffer of 1 MiB at most and, while it looks for the commit of another, a second one
    #[arg(long, env = "HYPERFLOW_SLOTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: u32,
    /// How long attempts may take to end after SIGTERM: for programs, terminationGracePeriodSeconds of the pod
    #[arg(long, env = "HYPERFLOW_GRACE_SECONDS", default_value_t = 2)]
    pub grace_seconds: u64,
    /// Address for /healthz, /readyz and /metrics
    #[arg(long, env = "HYPERFLOW_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// What is logged, as in RUST_LOG: info, or hyperflow_worker=debug
    #[arg(long, env = "HYPERFLOW_LOG", default_value = "info")]
    pub log: String,
    /// Of the block store
    #[command(flatten)]
    pub blocks: BlockSettings,
}

impl Settings {
    /// How long attempts may take to end after SIGTERM: the kubelet kills what is there a little later.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds).saturating_sub(BEFORE_THE_KUBELET)
    }

    /// Where the operator is.
    pub fn operator(&self) -> Operator {
        Operator {
            address: self.operator.clone(),
            tls_name: self.tls_name.clone(),
            ca_file: self.ca_file.clone(),
            token_file: self.token_file.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_can_be_set_by_the_environment() {
        let command = Settings::command();
        command.clone().debug_assert();
        for flag in command.get_arguments().filter(|flag| !matches!(flag.get_id().as_str(), "help" | "version")) {
            let name = format!("HYPERFLOW_{}", flag.get_id().as_str().to_uppercase());
            assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(name.as_str()));
        }
    }
}
