//! How the API server is watched: by short watches, and with short pauses after failures.
//!
//! A watch whose server died without a word is silent, as is one of objects that do not change. So the server is asked to
//! end each after some seconds, and one that goes on in silence is known to be dead. The next goes on where the last ended.

use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::{utils::Backoff, watcher};
use tokio::time::Instant;
use tracing::warn;

use crate::{clock, telemetry::chain};

/// How long one watch lasts, in seconds.
pub const WATCH_SECONDS: u32 = 20;
/// Pauses after failures: doubled up to the last, which is short. An API server that is back is seen soon, and a few
/// watches are no load.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_millis(1500);
/// A watch that did not fail for so long is sound: its next failure is its first.
const SOUND: Duration = Duration::from_secs(20);

/// How to watch objects.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// What a watch brings. Its failures are told here: the controller would hold up the turns of all jobs for each of them.
pub fn without_failures<T>(
    events: impl Stream<Item = Result<T, watcher::Error>>,
) -> impl Stream<Item = Result<T, watcher::Error>> {
    events.filter(|event| {
        if let Err(error) = event {
            warn!(error = chain(error), "a watch failed; it is tried again");
        }
        std::future::ready(event.is_ok())
    })
}

/// The API server answered that this must not be watched.
#[must_use]
pub fn is_refusal(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(why) | watcher::Error::WatchStartFailed(why)) = error else { return false };
    matches!(why, kube::Error::Api(status) if status.code == 403)
}

/// Pauses after failures of one watch.
#[derive(Debug, Default)]
pub struct Pauses {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let sound = self.last.is_some_and(|last| last.elapsed() >= SOUND);
        self.failures = if sound { 0 } else { self.failures };
        self.last = Some(Instant::now());
        // Without chance all replicas would come back at one moment, which does no harm but is not kind.
        let longest = LAST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        Some(part(longest, clock::random_u64().unwrap_or(u64::MAX)))
    }
}

impl Backoff for Pauses {
    /// Does nothing: before each list that fails there is an event that says that a list begins, and it would bring the
    /// pauses back to the first.
    fn reset(&mut self) {}
}

/// Between half of it and all of it.
fn part(pause: Duration, random: u64) -> Duration {
    let half = pause / 2;
    let millis = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_millis(random % millis).min(half)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::core::Status;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_short_one_and_begin_anew_after_sound_work() {
        let mut pauses = Pauses::default();
        for _ in 0..20 {
            let pause = pauses.next().unwrap();
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LAST_PAUSE, "{pause:?}");
            pauses.reset();
        }
        assert!(pauses.next().unwrap() >= LAST_PAUSE / 2);
        tokio::time::advance(SOUND).await;
        assert!(pauses.next().unwrap() <= FIRST_PAUSE);
    }

    #[test]
    fn chance_takes_away_half_at_most() {
        for random in [0, 1, 124, 125, u64::MAX] {
            let pause = part(FIRST_PAUSE, random);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= FIRST_PAUSE, "{random}: {pause:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_holds_nothing_up() {
        let failure = || Err(watcher::Error::NoResourceVersion);
        let events = without_failures(stream::iter([failure(), Ok(1), failure(), Ok(2)]));
        let events: Vec<i32> = events.map(Result::unwrap).collect().await;
        assert_eq!(events, [1, 2]);
    }

    #[test]
    fn only_a_403_is_a_refusal() {
        let answered = |code| kube::Error::Api(Box::new(Status { code, ..Status::default() }));
        assert!(is_refusal(&watcher::Error::InitialListFailed(answered(403))));
        assert!(is_refusal(&watcher::Error::WatchStartFailed(answered(403))));
        assert!(!is_refusal(&watcher::Error::WatchStartFailed(answered(500))));
        assert!(!is_refusal(&watcher::Error::NoResourceVersion));
    }
}
