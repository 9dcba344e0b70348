//! Which replica leads, by a Lease of its own.
//!
//! client-go's rule: a Lease has run out when this process has seen it unchanged for its whole length, by its own clock
//! that never goes back. Nobody's `renewTime` is believed. Leading is a matter of not doing things twice; that nothing is
//! published or committed twice rests on epochs and resource versions (P1, P5, P13).

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use crate::{
    client::{CallError, call},
    clock::{ChanceError, random_u64},
    settings::Settings,
    telemetry::chain,
};

/// Name of the Lease, in the operator's namespace.
const NAME: &str = "hyperflow-operator";
/// How often the Lease is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time for one look and write.
const TURN: Duration = Duration::from_millis(1500);

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when released.
    pub holder: String,
    /// How long it lasts after its last change.
    pub duration: Duration,
}

impl Record {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        Self { holder: spec.holder_identity.unwrap_or_default(), duration: Duration::from_secs(seconds) }
    }
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is ours: renew it.
    Hold,
    /// It is free or has run out: try to take it.
    Take,
    /// Somebody else leads.
    Wait,
}

/// Decides. `unchanged` is how long this process has seen the Lease as it is now.
#[must_use]
pub fn decide(record: &Record, me: &str, unchanged: Duration) -> Step {
    if record.holder == me {
        Step::Hold
    } else if record.holder.is_empty() || unchanged >= record.duration {
        Step::Take
    } else {
        Step::Wait
    }
}

/// A replica that would lead.
pub struct Candidate {
    api: Api<Lease>,
    me: String,
    duration: Duration,
    /// The version of the Lease last seen, and since when.
    observed: Option<(String, Instant)>,
    /// Until when we may call ourselves leader without another renewal.
    leads_until: Option<Instant>,
}

impl Candidate {
    /// A replica that has not looked yet. A process started again in the same pod is another candidate.
    ///
    /// # Errors
    /// When no random number can be drawn for its name.
    pub fn new(client: Client, settings: &Settings) -> Result<Self, ChanceError> {
        Ok(Self {
            api: Api::namespaced(client, &settings.namespace),
            me: format!("{}_{:016x}", settings.pod_name, random_u64()?),
            duration: settings.leader_lease(),
            observed: None,
            leads_until: None,
        })
    }

    /// Looks and renews until `stopping`; then lets go of the Lease, so that the next replica need not wait.
    pub async fn run(mut self, leading: watch::Sender<bool>, mut stopping: watch::Receiver<bool>) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopping.wait_for(|stop| *stop) => break,
            }
            let leads = self.turn().await;
            if leading.send_replace(leads) != leads {
                info!(identity = self.me, leads, "leadership changed");
            }
        }
        // First nobody here acts as leader any more, then the Lease goes.
        if leading.send_replace(false) {
            self.release().await;
        }
    }

    /// Whether we lead after another look.
    async fn turn(&mut self) -> bool {
        let started = Instant::now();
        // A leader's turn must end while it still leads, or it would learn too late that it does not.
        let left = self.leads_until.filter(|until| *until > started).map_or(TURN, |until| TURN.min(until - started));
        match timeout(left, self.look()).await {
            // Counted from before the write was sent: the others count from after it.
            Ok(Ok(leads)) => self.leads_until = leads.then(|| started + self.duration * 4 / 5),
            Ok(Err(error)) => warn!(error = chain(&error), "the Lease was not renewed"),
            Err(_elapsed) => warn!(seconds = left.as_secs_f32(), "the Lease was not renewed in time"),
        }
        self.leads_until.is_some_and(|until| Instant::now() < until)
    }

    async fn look(&mut self) -> Result<bool, CallError> {
        let Some(lease) = call("get lease", NAME, self.api.get_opt(NAME)).await? else {
            let lease = self.renewed(None);
            return won(call("create lease", NAME, self.api.create(&PostParams::default(), &lease)).await);
        };
        let version = lease.resource_version().unwrap_or_default();
        let since = match &self.observed {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.observed = Some((version, since));
        if decide(&Record::of(&lease), &self.me, since.elapsed()) == Step::Wait {
            return Ok(false);
        }
        // The write carries the resource version that we decided by: of two candidates one wins.
        let lease = self.renewed(Some(lease));
        won(call("renew lease", NAME, self.api.replace(NAME, &PostParams::default(), &lease)).await)
    }

    /// The Lease as ours.
    fn renewed(&self, lease: Option<Lease>) -> Lease {
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

/// Whether a write of the Lease won. Losing to another replica is no error.
fn won(written: Result<Lease, CallError>) -> Result<bool, CallError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str) -> Record {
        Record { holder: holder.into(), duration: Duration::from_secs(5) }
    }

    #[test]
    fn our_own_lease_is_held_however_old_it_is() {
        assert_eq!(decide(&record("a"), "a", Duration::from_secs(60)), Step::Hold);
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_length() {
        assert_eq!(decide(&record("b"), "a", Duration::ZERO), Step::Wait);
        assert_eq!(decide(&record("b"), "a", Duration::from_millis(4999)), Step::Wait);
        assert_eq!(decide(&record("b"), "a", Duration::from_secs(5)), Step::Take);
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        assert_eq!(decide(&record(""), "a", Duration::ZERO), Step::Take);
    }

    #[test]
    fn what_the_lease_says_of_time_is_not_believed() {
        let spec = LeaseSpec {
            holder_identity: Some("b".into()),
            lease_duration_seconds: Some(5),
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        };
        let lease = Lease { metadata: ObjectMeta::default(), spec: Some(spec) };
        assert_eq!(decide(&Record::of(&lease), "a", Duration::ZERO), Step::Wait);
    }
}
