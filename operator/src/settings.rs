//! What the administrator sets: flags, each with an environment variable, all of them in the chart's values.

mod volume;

use std::{ffi::OsString, net::SocketAddr, time::Duration};

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, builder::PossibleValuesParser};
use hyperflow_core::coordinator::Limits;

pub use self::volume::BlocksVolume;

/// Where workers serve blocks to each other.
pub const BLOCKS_PORT: u16 = 7701;

/// What the program is asked to do.
#[derive(Clone, Debug)]
pub enum Request {
    /// Run: what it does without a command.
    Run(Box<Settings>),
    /// Print the CustomResourceDefinition as YAML.
    Definition,
    /// Ask the replicas of an installation whether they work.
    Check(Check),
}

impl Request {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    /// When a setting is missing or unsound, and for `--help`, which clap takes for an error as well.
    pub fn read(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let command = Settings::command()
            .subcommand(Command::new(DEFINITION).about("Print the CustomResourceDefinition as YAML"))
            .subcommand(Check::augment_args(Command::new(CHECK)))
            .subcommand_negates_reqs(true)
            .args_conflicts_with_subcommands(true);
        let mut matches = command.try_get_matches_from(args)?;
        // Settings are not looked at for a command: some may be in the environment, and others not.
        match matches.remove_subcommand() {
            Some((name, mut matches)) if name == CHECK => Ok(Self::Check(Check::from_arg_matches_mut(&mut matches)?)),
            Some(_) => Ok(Self::Definition),
            None => Ok(Self::Run(Box::new(Settings::from_arg_matches_mut(&mut matches)?))),
        }
    }
}

const DEFINITION: &str = "crd";
const CHECK: &str = "check";

/// Ask every replica of an operator whether it is ready, and whether one leads. Ends with 0 if so.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// `host:port` of /readyz and /metrics; the host is a name with an address for each replica.
    pub address: String,
    /// How long to go on asking.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub within_seconds: u64,
}

/// The Hyperflow operator: plans ShardJobs into shards and leases them to worker pods.
#[derive(Clone, Debug, Parser)]
#[command(name = "hyperflow-operator", version)]
pub struct Settings {
    /// Namespace of the operator itself: its Lease and the Secret with its CA are there.
    #[arg(long, env = "HYPERFLOW_NAMESPACE")]
    pub namespace: String,
    /// Look after the ShardJobs of this namespace only. Default: all namespaces.
    #[arg(long, env = "HYPERFLOW_WATCH_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub watch_namespace: Option<String>,
    /// Name of the pod the operator runs in: its identity in the Lease and in Events.
    #[arg(long, env = "HYPERFLOW_POD_NAME")]
    pub pod_name: String,
    /// Image of the worker pods.
    #[arg(long, env = "HYPERFLOW_WORKER_IMAGE")]
    pub worker_image: String,
    /// Pull policy of the worker image.
    #[arg(
        long,
        env = "HYPERFLOW_WORKER_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent",
        value_parser = PossibleValuesParser::new(["Always", "IfNotPresent", "Never"])
    )]
    pub worker_image_pull_policy: String,
    /// Name of the headless Service that workers find the operator's replicas by.
    #[arg(long, env = "HYPERFLOW_SERVICE", default_value = "hyperflow-operator-workers")]
    pub service: String,
    /// Name in the operator's certificate, which workers verify. Default: hyperflow-operator.{namespace}.svc
    #[arg(long, env = "HYPERFLOW_TLS_NAME")]
    pub tls_name: Option<String>,
    /// DNS domain of the cluster. Default: left to the search list of the worker pods.
    #[arg(long, env = "HYPERFLOW_CLUSTER_DOMAIN", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub cluster_domain: Option<String>,
    /// Where workers' sessions are accepted, over TLS.
    #[arg(long, env = "HYPERFLOW_SESSIONS", default_value = "0.0.0.0:7700")]
    pub sessions: SocketAddr,
    /// Most sessions at a time; the next worker is told to come again.
    #[arg(long, env = "HYPERFLOW_MAX_SESSIONS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_sessions: u32,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "HYPERFLOW_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// A shard's lease that is not renewed for so long is lost.
    #[arg(long, env = "HYPERFLOW_LEASE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=3600))]
    pub lease_seconds: u32,
    /// A worker that hears no operator for so long stops.
    #[arg(long, env = "HYPERFLOW_ORPHAN_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(10..=604_800))]
    pub orphan_seconds: u32,
    /// Let one replica lead, by a Lease. Safety does not rest on it.
    #[arg(long, env = "HYPERFLOW_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// A leader that does not renew its Lease for so long is replaced.
    #[arg(long, env = "HYPERFLOW_LEADER_LEASE_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub leader_lease_seconds: u16,
    /// Port of /healthz, /readyz and /metrics in worker pods.
    #[arg(long, env = "HYPERFLOW_WORKER_HTTP_PORT", default_value_t = 8080, value_parser = worker_port)]
    pub worker_http_port: u16,
    /// Volume in every pod that keeps blocks, unless its ShardJob names another: a Kubernetes volume source as JSON, such
    /// as {"persistentVolumeClaim":{"claimName":"blocks"}}. Default: an emptyDir, which is lost with its pod.
    #[arg(long, env = "HYPERFLOW_BLOCKS_VOLUME", value_parser = BlocksVolume::read)]
    pub blocks_volume: Option<BlocksVolume>,
    /// Most bytes a second that a worker copies blocks at, beside its tasks. 0: no limit.
    #[arg(long, env = "HYPERFLOW_BLOCKS_BYTES_PER_SECOND", default_value_t = 50_000_000)]
    pub blocks_bytes_per_second: u64,
    /// The blocks of a node that is silent for so long are copied again elsewhere.
    #[arg(long, env = "HYPERFLOW_BLOCKS_LOST_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(5..=86_400))]
    pub blocks_lost_seconds: u32,
    /// What is logged: a level, or target=level pairs.
    #[arg(long, env = "HYPERFLOW_LOG_FILTER", default_value = "info")]
    pub log_filter: String,
}

impl Settings {
    /// The name workers verify.
    #[must_use]
    pub fn tls_name(&self) -> String {
        self.tls_name.clone().unwrap_or_else(|| format!("hyperflow-operator.{}.svc", self.namespace))
    }

    /// `host:port` that workers look up: every replica's address.
    #[must_use]
    pub fn sessions_endpoint(&self) -> String {
        let domain = self.cluster_domain.as_ref().map(|domain| format!(".{domain}")).unwrap_or_default();
        format!("{}.{}.svc{domain}:{}", self.service, self.namespace, self.sessions.port())
    }

    /// What the core is told.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let lease_millis = u64::from(self.lease_seconds) * 1000;
        let blocks_lost_millis = u64::from(self.blocks_lost_seconds) * 1000;
        Limits { lease_millis, orphan_seconds: self.orphan_seconds, blocks_lost_millis }
    }

    /// How long a Lease lasts.
    #[must_use]
    pub fn leader_lease(&self) -> Duration {
        Duration::from_secs(self.leader_lease_seconds.into())
    }
}

/// A port of worker pods, which run without root and serve blocks on a port of their own.
fn worker_port(text: &str) -> Result<u16, String> {
    let wanted = || format!("must be a port from 1024 to 65535, and is '{text}'");
    let port: u16 = text.parse().map_err(|_| wanted())?;
    match port {
        0..1024 => Err(wanted()),
        BLOCKS_PORT => Err(format!("{BLOCKS_PORT} is where workers serve blocks: choose another")),
        port => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_must_be_said_is_enough() {
        let args = ["hyperflow-operator", "--namespace", "system", "--pod-name", "op-0", "--worker-image", "w:1"];
        let Request::Run(settings) = Request::read(args).unwrap() else { panic!("it should run") };
        assert_eq!(settings.tls_name(), "hyperflow-operator.system.svc");
        assert_eq!(settings.sessions_endpoint(), "hyperflow-operator-workers.system.svc:7700");
        assert!(settings.leader_elect && settings.blocks_volume.is_none());
        assert_eq!(settings.limits().blocks_lost_millis, 60_000);
    }

    #[test]
    fn what_is_wrong_with_the_volume_for_blocks_is_said() {
        let args = ["hyperflow-operator", "--namespace", "s", "--pod-name", "p", "--worker-image", "w:1"];
        let read = |volume| Request::read(args.into_iter().chain([volume]));
        assert!(read(r#"--blocks-volume={"emptyDir":{}}"#).is_ok());
        let error = read(r#"--blocks-volume={"hostpath":{}}"#).unwrap_err().to_string();
        assert!(error.contains("--blocks-volume") && error.contains("'hostpath' is no volume source"), "{error}");
    }

    #[test]
    fn a_port_of_workers_is_one_they_may_use() {
        let args = ["hyperflow-operator", "--namespace", "s", "--pod-name", "p", "--worker-image", "w:1"];
        let read = |port| Request::read(args.into_iter().chain(["--worker-http-port", port]));
        assert!(read("1024").is_ok() && read("65535").is_ok());
        for (port, why) in [("7701", "where workers serve blocks"), ("80", "from 1024"), ("65536", "from 1024")] {
            let error = read(port).unwrap_err().to_string();
            assert!(error.contains("--worker-http-port") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn printing_the_definition_needs_no_settings() {
        assert!(matches!(Request::read(["hyperflow-operator", "crd"]).unwrap(), Request::Definition));
        assert!(Request::read(["hyperflow-operator"]).is_err());
    }

    #[test]
    fn a_check_needs_an_address_and_no_settings() {
        let Request::Check(check) = Request::read(["hyperflow-operator", "check", "a.b.svc:8080"]).unwrap() else {
            panic!("it should check")
        };
        assert_eq!((&*check.address, check.within_seconds), ("a.b.svc:8080", 30));
        assert!(Request::read(["hyperflow-operator", "check"]).is_err());
    }
}
