//! Which replica leads, by a Lease of its own.
//!
//! client-go's rule: a Lease has run out when this process has seen it unchanged for its whole length, by its own clock
//! that never goes back. Nobody's `renewTime` is believed. Leading is a matter of not doing things twice; that nothing is
//! published or committed twice rests on epochs and resource versions (P1, P5, P13).
//!
//! Every replica looks at the Lease every second, so it is also where a restored API server is noticed; and once more when it
//! runs out, so that a job whose operator is gone waits no longer than that.

mod lease;

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use self::lease::{Heard, Observed, Record, Step, decide, identity, is_older, renewed};
use crate::{
    client::{CallError, call},
    clock::{ChanceError, random_u64},
    settings::Settings,
    telemetry::chain,
};

/// Name of the Lease, in the operator's namespace.
const NAME: &str = "hyperflow-operator";
/// How often the Lease is renewed, or looked at, at least.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time for one look and write.
const TURN: Duration = Duration::from_millis(1500);

/// The store of the API server holds older data than it did. Its watches stay silent until it has come as far again, and
/// everything that was read before is worth nothing: who sees this begins anew.
#[derive(Debug, thiserror::Error)]
#[error(
    "the API server's data went back in time, from version {seen} to {now}: it was restored; starting again from what is \
     there now"
)]
pub struct WentBack {
    seen: String,
    now: String,
}

/// A turn that did not come to its end.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    WentBack(#[from] WentBack),
}

/// A replica that would lead.
pub struct Candidate {
    api: Api<Lease>,
    me: String,
    duration: Duration,
    /// The Lease as others keep it.
    observed: Option<Observed>,
    /// Its highest version that was seen.
    version: String,
    /// When it was last renewed, if we lead.
    renewed: Option<Instant>,
    /// How long after a turn began the next one does.
    pause: Duration,
}

impl Candidate {
    /// A replica that has not looked yet. A process started again in the same pod is another candidate.
    ///
    /// # Errors
    /// When no random number can be drawn for its name.
    pub fn new(client: Client, settings: &Settings) -> Result<Self, ChanceError> {
        Ok(Self {
            api: Api::namespaced(client, &settings.namespace),
            me: identity(&settings.pod_name, random_u64()?),
            duration: settings.leader_lease(),
            observed: None,
            version: String::new(),
            renewed: None,
            pause: PERIOD,
        })
    }

    /// Looks and renews until `stopping`; then lets go of the Lease, so that the next replica need not wait.
    ///
    /// # Errors
    /// When the API server was restored: nobody here leads any more then, and the Lease is left to run out.
    pub async fn run(
        mut self,
        leading: watch::Sender<bool>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), WentBack> {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next) => {}
                _ = stopping.wait_for(|stop| *stop) => break,
            }
            let started = Instant::now();
            let turn = self.turn(started).await;
            next = started + self.pause;
            let leads = matches!(turn, Ok(true));
            if leading.send_replace(leads) != leads {
                info!(identity = self.me, leads, "leadership changed");
            }
            turn?;
        }
        // First nobody here acts as leader any more, then the Lease goes.
        if leading.send_replace(false) {
            self.release().await;
        }
        Ok(())
    }

    /// Whether we lead after another look.
    async fn turn(&mut self, started: Instant) -> Result<bool, WentBack> {
        self.pause = PERIOD;
        let heard = match timeout(TURN, self.look()).await {
            Ok(Ok(true)) => Heard::Ours,
            Ok(Ok(false)) => Heard::Others,
            Ok(Err(TurnError::WentBack(went_back))) => return Err(went_back),
            Ok(Err(TurnError::Call(error))) => {
                warn!(error = chain(&error), "the Lease was not renewed");
                if error.is_answered() { Heard::Refused } else { Heard::Nothing }
            }
            Err(_elapsed) => {
                warn!(seconds = TURN.as_secs_f32(), "the Lease was not renewed in time");
                Heard::Nothing
            }
        };
        self.renewed = renewed(self.renewed, heard, self.duration, started, Instant::now());
        Ok(self.renewed.is_some())
    }

    /// Whether the Lease is ours for its whole length again.
    async fn look(&mut self) -> Result<bool, TurnError> {
        let Some(lease) = call("get lease", NAME, self.api.get_opt(NAME)).await? else {
            let lease = self.as_ours(None);
            return self.won(call("create lease", NAME, self.api.create(&PostParams::default(), &lease)).await);
        };
        let version = lease.resource_version().unwrap_or_default();
        self.saw(&version)?;
        let observed = Observed::again(self.observed.take(), &version, Instant::now(), TURN);
        let step = decide(&Record::of(&lease), &self.me, observed.unchanged);
        self.observed = Some(observed);
        if let Step::Wait(left) = step {
            self.pause = PERIOD.min(left);
            return Ok(false);
        }
        // The write carries the resource version that we decided by: of two candidates one wins.
        let lease = self.as_ours(Some(lease));
        self.won(call("renew lease", NAME, self.api.replace(NAME, &PostParams::default(), &lease)).await)
    }

    /// Whether a write of the Lease won. Losing to another replica is no error.
    fn won(&mut self, written: Result<Lease, CallError>) -> Result<bool, TurnError> {
        match written {
            Ok(lease) => Ok(self.saw(&lease.resource_version().unwrap_or_default()).map(|()| true)?),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Compares a version of the Lease with those before: a store that was not restored only counts up.
    fn saw(&mut self, version: &str) -> Result<(), WentBack> {
        if is_older(version, &self.version) {
            return Err(WentBack { seen: self.version.clone(), now: version.into() });
        }
        self.version = version.into();
        Ok(())
    }

    /// The Lease as ours.
    fn as_ours(&self, lease: Option<Lease>) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() },
            spec: None,
        });
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.me) {
            spec.holder_identity = Some(self.me.clone());
            spec.acquire_time.clone_from(&now);
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.lease_duration_seconds = Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = now;
        lease
    }

    /// Lets go of the Lease. What fails here costs the next leader a few seconds, no more.
    async fn release(&self) {
        let release = async {
            let Some(mut lease) = call("get lease", NAME, self.api.get_opt(NAME)).await? else { return Ok(()) };
            let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me))
            else {
                return Ok(());
            };
            spec.holder_identity = Some(String::new());
            call("release lease", NAME, self.api.replace(NAME, &PostParams::default(), &lease)).await.map(drop)
        };
        match timeout(PERIOD, release).await {
            Ok(Ok(())) => info!(identity = self.me, "let go of the Lease"),
            Ok(Err::<(), CallError>(error)) => warn!(error = chain(&error), "the Lease was not released"),
            Err(_elapsed) => warn!("the Lease was not released in time"),
        }
    }
}
