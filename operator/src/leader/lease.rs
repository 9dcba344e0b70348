//! What a Lease says, and what follows from it. Decides only.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

/// How long a leader that hears nothing goes on after it last renewed its Lease. An API server that is down gives the
/// Lease to nobody else, and workers keep their operator meanwhile. The price: who is cut off from the API server alone
/// leads for so long beside the next one. Then two lead, and none of what the old one decides is stored: each write of
/// status carries the version that it knows (P13), and nothing is published twice (P5).
pub const OUTAGE: Duration = Duration::from_secs(120);

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when released.
    pub holder: String,
    /// How long it lasts after its last change.
    pub duration: Duration,
}

impl Record {
    /// What this Lease says.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
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
    /// Somebody else leads, for so long at least.
    Wait(Duration),
}

/// The name under which a process holds the Lease.
#[must_use]
pub fn identity(pod: &str, nonce: u64) -> String {
    format!("{pod}_{nonce:016x}")
}

/// The pod of a process that holds the Lease under this name.
fn pod_of(identity: &str) -> Option<&str> {
    identity.rsplit_once('_').map(|(pod, _)| pod)
}

/// Decides. `unchanged` is how long this process has seen the Lease as it is now.
///
/// A kubelet starts a container again only when the process before has ended, so that nobody waits for an earlier one of
/// the same pod.
#[must_use]
pub fn decide(record: &Record, me: &str, unchanged: Duration) -> Step {
    let has_ended = pod_of(&record.holder).is_some_and(|pod| Some(pod) == pod_of(me));
    let left = record.duration.saturating_sub(unchanged);
    if record.holder == me {
        Step::Hold
    } else if record.holder.is_empty() || has_ended || left.is_zero() {
        Step::Take
    } else {
        Step::Wait(left)
    }
}

/// The Lease as it was seen last.
#[derive(Clone, Debug)]
pub struct Observed {
    version: String,
    at: Instant,
    /// For how long it was seen like that.
    pub unchanged: Duration,
}

impl Observed {
    /// Another look. No two looks count for more than `most`: in a gap between them nobody may have been able to renew, so
    /// that after an outage a leader that lives has the time to do so.
    #[must_use]
    pub fn again(before: Option<Self>, version: &str, now: Instant, most: Duration) -> Self {
        let unchanged = match before {
            Some(before) if before.version == version => before.unchanged + (now - before.at).min(most),
            _ => Duration::ZERO,
        };
        Self { version: version.into(), at: now, unchanged }
    }
}

/// How a look at the Lease, or a write of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is ours for its whole length again.
    Ours,
    /// Somebody else has it, or was first to write.
    Others,
    /// The API server answered, but would not have it read or written.
    Refused,
    /// There was no answer, or one of a server in trouble.
    Nothing,
}

/// When the Lease was renewed last if we lead, after another turn that began at `started` and is over `now`. None ends
/// leadership for good: only another renewal begins it.
#[must_use]
pub fn renewed(
    before: Option<Instant>,
    heard: Heard,
    duration: Duration,
    started: Instant,
    now: Instant,
) -> Option<Instant> {
    // A part of it is left for the others' clocks and the way of our answers.
    let sure = duration * 4 / 5;
    let (renewed, lasts) = match heard {
        // Counted from before the write was sent: the others count from after it.
        Heard::Ours => (Some(started), sure),
        Heard::Others => (None, sure),
        Heard::Refused => (before, sure),
        Heard::Nothing => (before, OUTAGE),
    };
    renewed.filter(|renewed| now - *renewed < lasts)
}

/// Whether a resource's version is older than one that was seen before. They are numbers of any length, which one resource
/// counts up; what is no number cannot be compared.
#[must_use]
pub fn is_older(version: &str, seen: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (version, seen) = (version.trim_start_matches('0'), seen.trim_start_matches('0'));
    is_number(version) && is_number(seen) && (version.len(), version) < (seen.len(), seen)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::coordination::v1::LeaseSpec,
        apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
        jiff::Timestamp,
    };

    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    fn record(holder: &str) -> Record {
        Record { holder: holder.into(), duration: LEASE }
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn our_own_lease_is_held_however_old_it_is() {
        assert_eq!(decide(&record("a"), "a", Duration::from_secs(60)), Step::Hold);
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_length() {
        assert_eq!(decide(&record("b"), "a", Duration::ZERO), Step::Wait(LEASE));
        assert_eq!(decide(&record("b"), "a", Duration::from_millis(4999)), Step::Wait(Duration::from_millis(1)));
        assert_eq!(decide(&record("b"), "a", LEASE), Step::Take);
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        assert_eq!(decide(&record(""), "a", Duration::ZERO), Step::Take);
    }

    #[test]
    fn nobody_waits_for_an_earlier_process_of_the_same_pod() {
        let (me, before, other) = (identity("pod-a", 2), identity("pod-a", 1), identity("pod-ab", 1));
        assert_eq!(decide(&record(&before), &me, Duration::ZERO), Step::Take);
        assert_eq!(decide(&record(&other), &me, Duration::ZERO), Step::Wait(LEASE));
        assert_eq!(decide(&record("pod-a"), &me, Duration::ZERO), Step::Wait(LEASE));
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
        assert_eq!(decide(&Record::of(&lease), "a", Duration::ZERO), Step::Wait(LEASE));
    }

    /// How long the Lease was seen unchanged after looks at these times.
    fn unchanged(looks: &[(f64, &str)]) -> Duration {
        let start = Instant::now();
        let look = |before, (at, version): &(f64, &str)| {
            Some(Observed::again(before, version, start + seconds(*at), seconds(1.5)))
        };
        looks.iter().fold(None, look).unwrap().unchanged
    }

    #[test]
    fn time_counts_while_the_lease_is_looked_at() {
        assert_eq!(unchanged(&[(0.0, "7")]), Duration::ZERO);
        assert_eq!(unchanged(&[(0.0, "7"), (1.0, "7"), (2.0, "7")]), seconds(2.0));
        assert_eq!(unchanged(&[(0.0, "7"), (1.0, "7"), (2.0, "8")]), Duration::ZERO);
    }

    #[test]
    fn an_outage_is_no_silence_of_the_leader() {
        let after = unchanged(&[(0.0, "7"), (1.0, "7"), (61.0, "7")]);
        assert_eq!(decide(&record("b"), "a", after), Step::Wait(seconds(2.5)));
    }

    #[test]
    fn a_leader_outlasts_an_outage_and_nothing_else() {
        let start = Instant::now();
        let later =
            |heard, after: f64| renewed(Some(start), heard, LEASE, start + seconds(after), start + seconds(after));
        assert_eq!(later(Heard::Nothing, 119.0), Some(start));
        assert_eq!(later(Heard::Nothing, 120.0), None);
        assert_eq!(later(Heard::Others, 0.1), None);
        assert_eq!(later(Heard::Refused, 3.9), Some(start));
        assert_eq!(later(Heard::Refused, 4.0), None);
        assert_eq!(later(Heard::Ours, 60.0), Some(start + seconds(60.0)));
    }

    #[test]
    fn who_does_not_lead_does_not_begin_to_for_want_of_an_answer() {
        let now = Instant::now();
        for heard in [Heard::Nothing, Heard::Refused, Heard::Others] {
            assert_eq!(renewed(None, heard, LEASE, now, now), None, "{heard:?}");
        }
        let slow = renewed(None, Heard::Ours, LEASE, now, now + seconds(4.0));
        assert_eq!(slow, None, "an answer that took so long is not sure");
    }

    #[test]
    fn versions_are_numbers_of_any_length() {
        assert!(is_older("999", "1000"));
        assert!(is_older("7", "8"));
        assert!(!is_older("8", "8"));
        assert!(!is_older("1000", "999"));
        assert!(is_older("18446744073709551615", "18446744073709551616"));
        assert!(!is_older("", "8") && !is_older("7a", "8") && !is_older("7", "x"));
    }
}
