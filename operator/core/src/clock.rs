//! How long a job has been active: what `spec.activeDeadlineSeconds` limits. The clock stands still while the job is
//! suspended and goes on where it stood. `status.recovery.clock` keeps it, so that it outlives every process.

use std::fmt;

use crate::{Now, recovery::RecoveryError};

/// The time in which a job was not suspended. Its text is `35` while it stands still after 35 seconds, and
/// `35/u1763900000` while it goes on since that second: the text does not change with the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Seconds before the stretch under way.
    used: u64,
    stretch: Option<Stretch>,
}

/// A time without a pause, up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// The second since 1970 in which it began.
    since: i64,
    /// Milliseconds of it before `at`: another process had it then, and there is nothing but the date to go by.
    before: u64,
    /// From here on it is measured by our own clock, which nobody sets.
    at: u64,
}

impl Clock {
    /// Reads it. Nothing is a clock that has never gone.
    ///
    /// # Errors
    /// When it is not of the form.
    pub fn read(now: Now, text: &str) -> Result<Self, RecoveryError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wrong = || RecoveryError::of(text);
        let (used, since) = text.split_once("/u").map_or((text, None), |(used, since)| (used, Some(since)));
        let since = since.map(str::parse::<i64>).transpose().map_err(|_| wrong())?;
        let stretch = since.map(|since| {
            let seconds = u64::try_from(now.unix.saturating_sub(since)).unwrap_or(0);
            Stretch { since, before: seconds.saturating_mul(1000), at: now.millis }
        });
        Ok(Self { used: used.parse().map_err(|_| wrong())?, stretch })
    }

    /// Lets it go, if it stands still.
    pub fn start(&mut self, now: Now) {
        self.stretch.get_or_insert(Stretch { since: now.unix, before: 0, at: now.millis });
    }

    /// Stops it, if it goes.
    pub fn stop(&mut self, now: Now) {
        *self = Self { used: self.millis(now) / 1000, stretch: None };
    }

    /// Milliseconds that it has gone.
    #[must_use]
    pub fn millis(&self, now: Now) -> u64 {
        let stretch = self.stretch.map_or(0, |it| it.before.saturating_add(now.millis.saturating_sub(it.at)));
        self.used.saturating_mul(1000).saturating_add(stretch)
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stretch {
            Some(Stretch { since, .. }) => write!(f, "{}/u{since}", self.used),
            None => write!(f, "{}", self.used),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Now {
        Now { millis: 7000 + seconds.unsigned_abs() * 1000, unix: 1_763_900_000 + seconds }
    }

    #[test]
    fn it_stands_still_while_it_is_stopped_and_is_not_begun_anew() {
        let mut clock = Clock::default();
        clock.stop(at(0));
        assert_eq!((clock.millis(at(100)), clock.to_string().as_str()), (0, "0"));
        clock.start(at(100));
        clock.start(at(110));
        assert_eq!((clock.millis(at(130)), clock.to_string().as_str()), (30_000, "0/u1763900100"));
        clock.stop(at(135));
        assert_eq!((clock.millis(at(900)), clock.to_string().as_str()), (35_000, "35"));
        clock.start(at(900));
        assert_eq!((clock.millis(at(905)), clock.to_string().as_str()), (40_000, "35/u1763900900"));
    }

    #[test]
    fn another_process_goes_by_the_date_and_then_by_its_own_clock() {
        let there = Now { millis: 3, unix: 1_763_900_130 };
        let clock = Clock::read(there, "35/u1763900100").unwrap();
        assert_eq!(clock.millis(there), 65_000);
        let set_back = Now { millis: 10_003, unix: 0 };
        assert_eq!(clock.millis(set_back), 75_000);
        assert_eq!(Clock::read(Now { millis: 3, unix: 9 }, "35/u1763900100").unwrap().millis(there), 35_000);
        for wrong in ["x", "/u1", "1/2", "-1", "1/u", "1/u1/u2"] {
            assert!(Clock::read(there, wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(used in any::<u64>(), since in prop::option::of(any::<i64>()), unix in any::<i64>()) {
            let text = since.map_or(used.to_string(), |since| format!("{used}/u{since}"));
            let mut clock = Clock::read(Now { millis: 5, unix }, &text).unwrap();
            prop_assert_eq!(clock.to_string(), text);
            let later = Now { millis: u64::MAX, unix };
            let read = clock.millis(Now { millis: 5, unix });
            prop_assert!(clock.millis(later) >= read);
            clock.stop(later);
        }
    }
}
