//! How fast shards are published, and when the job will be complete if it goes on so.
//!
//! What was published lately is counted by the second. An estimate is made when status is written anyway, and what it says
//! changes only when it would be clearly wrong otherwise: it must neither cause a write nor make a reader restless.

use std::collections::VecDeque;

use hyperflow_api::status::Throughput;
use k8s_openapi::jiff::Timestamp;

use crate::Now;

/// What is counted together.
const BUCKET_MILLIS: u64 = 1000;

/// What is older is forgotten, as long as there is enough without it: few slow shards are remembered for longer.
const WINDOW_MILLIS: u64 = 60_000;
const ENOUGH: u64 = 32;

/// Nothing is said before so much was seen.
const LEAST_MILLIS: u64 = 5000;

/// One part in so many is no news.
const STEADY: u64 = 20;

/// Nor are so many seconds.
const STEADY_SECONDS: u64 = 10;

/// What was published in about a second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    from: u64,
    shards: u64,
    bytes: u64,
}

/// What is measured.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    since: Since,
    buckets: VecDeque<Bucket>,
}

/// Since when.
#[derive(Clone, Copy, Debug, Default)]
enum Since {
    /// Nothing is: the job rests.
    #[default]
    Never,
    /// From the next grant or result on.
    Next,
    /// This time, in milliseconds.
    Millis(u64),
}

/// What is said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// How fast shards are published.
    pub throughput: Throughput,
    /// When there will be none left, in seconds since 1970.
    pub complete: i64,
}

impl Estimate {
    /// Everything so far is forgotten: it says nothing of what follows.
    pub fn begin(&mut self) {
        *self = Self { since: Since::Next, buckets: VecDeque::new() };
    }

    /// Until the next beginning nothing is to be expected.
    pub fn rest(&mut self) {
        *self = Self::default();
    }

    /// Whether it rests.
    #[must_use]
    pub fn rests(&self) -> bool {
        matches!(self.since, Since::Never)
    }

    /// A shard was granted: work begins here.
    pub fn granted(&mut self, now: u64) {
        if matches!(self.since, Since::Next) {
            self.since = Since::Millis(now);
        }
    }

    /// A shard was published. If nothing was measured before, its work was not either.
    pub fn published(&mut self, now: u64, bytes: u64) {
        if !matches!(self.since, Since::Millis(_)) {
            return self.granted(now);
        }
        match self.buckets.back_mut().filter(|bucket| now < bucket.from + BUCKET_MILLIS) {
            Some(bucket) => {
                bucket.shards += 1;
                bucket.bytes = bucket.bytes.saturating_add(bytes);
            }
            None => {
                self.buckets.push_back(Bucket { from: now, shards: 1, bytes });
                self.forget(now);
            }
        }
    }

    fn forget(&mut self, now: u64) {
        let mut left: u64 = self.buckets.iter().map(|bucket| bucket.shards).sum();
        while let Some(oldest) = self.buckets.front() {
            left -= oldest.shards;
            if left < ENOUGH || now < oldest.from + WINDOW_MILLIS {
                return;
            }
            self.since = Since::Millis(oldest.from + BUCKET_MILLIS);
            self.buckets.pop_front();
        }
    }

    /// What to say when so many shards are left, and `last` was said before. As long as too little is known, what an
    /// earlier operator said stands, until its time has come.
    #[must_use]
    pub fn forecast(&self, now: Now, left: u32, last: Option<Forecast>) -> Option<Forecast> {
        let last = last.filter(|last| last.complete > now.unix);
        if self.rests() {
            return None;
        }
        let Some(fresh) = self.measured(now, left) else { return last };
        let Some(last) = last else { return Some(fresh) };
        let away = u64::try_from(fresh.complete - now.unix).unwrap_or(0);
        let moved = fresh.complete.abs_diff(last.complete);
        Some(Forecast {
            throughput: Throughput {
                shards_per_minute: steady(last.throughput.shards_per_minute, fresh.throughput.shards_per_minute),
                bytes_per_second: steady(last.throughput.bytes_per_second, fresh.throughput.bytes_per_second),
            },
            complete: if moved <= STEADY_SECONDS.max(away / STEADY) { last.complete } else { fresh.complete },
        })
    }

    fn measured(&self, now: Now, left: u32) -> Option<Forecast> {
        let Since::Millis(since) = self.since else { return None };
        let millis = now.millis.saturating_sub(since);
        let shards: u64 = self.buckets.iter().map(|bucket| bucket.shards).sum();
        if millis < LEAST_MILLIS || shards == 0 {
            return None;
        }
        let bytes = self.buckets.iter().fold(0_u64, |sum, bucket| sum.saturating_add(bucket.bytes));
        let in_time = |amount: u64, unit: u64| {
            let rate = (u128::from(amount) * u128::from(unit) + u128::from(millis / 2)) / u128::from(millis);
            i64::try_from(rate).unwrap_or(i64::MAX)
        };
        let seconds = u128::from(left) * u128::from(millis) / u128::from(shards) / 1000;
        Some(Forecast {
            throughput: Throughput {
                shards_per_minute: in_time(shards, 60_000),
                bytes_per_second: in_time(bytes, 1000),
            },
            complete: now.unix.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)).saturating_add(1),
        })
    }
}

fn steady(last: i64, fresh: i64) -> i64 {
    if last.abs_diff(fresh) <= last.unsigned_abs() / STEADY { last } else { fresh }
}

/// `15:24Z`, and the day before it when that is not today.
#[must_use]
pub fn clock_time(now: i64, complete: i64) -> String {
    let read = |unix: i64| Timestamp::from_second(unix).ok();
    let (Some(today), Some(time)) = (read(now), read(complete.saturating_add(30))) else { return String::new() };
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let form = if day(today) == day(time) { "%H:%MZ" } else { "%Y-%m-%dT%H:%MZ" };
    time.strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T12:00:00Z
    const NOON: i64 = 1_795_435_200;

    fn at(millis: u64) -> Now {
        Now { millis, unix: NOON + i64::try_from(millis / 1000).unwrap() }
    }

    /// Four shards a second of a thousand bytes each, for so many seconds.
    fn steadily(seconds: u64) -> Estimate {
        let mut estimate = Estimate::default();
        estimate.begin();
        estimate.granted(0);
        (1..=seconds * 4).for_each(|quarter| estimate.published(quarter * 250, 1000));
        estimate
    }

    #[test]
    fn the_end_is_when_the_rest_is_done_at_this_speed() {
        let estimate = steadily(10);
        let forecast = estimate.forecast(at(10_000), 400, None).unwrap();
        assert_eq!(forecast.throughput, Throughput { shards_per_minute: 240, bytes_per_second: 4000 });
        assert!(forecast.complete.abs_diff(NOON + 110) <= 1, "{}", forecast.complete - NOON);
    }

    #[test]
    fn what_is_hardly_known_is_not_said() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.forecast(at(9000), 9, None), None);
        estimate.begin();
        estimate.granted(0);
        assert_eq!(estimate.forecast(at(90_000), 9, None), None, "nothing was published");
        estimate.published(1000, 1);
        assert_eq!(estimate.forecast(at(4000), 9, None), None, "too short");
        assert!(estimate.forecast(at(6000), 9, None).is_some());
        estimate.rest();
        assert_eq!(estimate.forecast(at(9000), 9, None), None);
    }

    #[test]
    fn a_new_operator_says_what_the_last_one_said_until_it_knows_better() {
        let mut estimate = Estimate::default();
        estimate.begin();
        let said = Forecast { complete: NOON + 50, ..Forecast::default() };
        let again = |estimate: &Estimate, millis| estimate.forecast(at(millis), 400, Some(said.clone()));
        assert_eq!(again(&estimate, 1000), Some(said.clone()));
        assert_eq!(again(&estimate, 50_000), None, "its time has come");
        // Results that it missed come all at once: they say nothing of how fast they were made.
        (0..100).for_each(|_| estimate.published(2000, 1));
        assert_eq!(again(&estimate, 2000), Some(said.clone()));
    }

    #[test]
    fn what_changes_little_is_said_as_before_and_what_changes_much_is_not() {
        let estimate = steadily(60);
        let fresh = estimate.forecast(at(60_000), 4000, None).unwrap();
        let near = Forecast { complete: fresh.complete + 40, ..fresh.clone() };
        assert_eq!(estimate.forecast(at(60_000), 4000, Some(near.clone())), Some(near));
        let far = Forecast { complete: fresh.complete + 60, ..fresh.clone() };
        assert_eq!(estimate.forecast(at(60_000), 4000, Some(far)), Some(fresh));
    }

    #[test]
    fn what_was_long_ago_is_forgotten_unless_there_is_little_else() {
        let mut estimate = steadily(10);
        let slow = |estimate: &mut Estimate, from: u64, to: u64| {
            (from..to).for_each(|minute| estimate.published(minute * 60_000, 1000));
        };
        slow(&mut estimate, 1, 11);
        let speed = |estimate: &Estimate, minute: u64| {
            estimate.forecast(at(minute * 60_000), 9, None).unwrap().throughput.shards_per_minute
        };
        assert_eq!(speed(&estimate, 10), 3, "ten slow ones are not enough without some of the forty before");
        slow(&mut estimate, 11, 60);
        assert_eq!(speed(&estimate, 59), 1);
        assert!(estimate.buckets.len() < 40, "{}", estimate.buckets.len());
    }

    #[test]
    fn a_time_of_day_has_its_day_when_it_is_not_today() {
        assert_eq!(clock_time(NOON, NOON + 12_241), "15:24Z");
        assert_eq!(clock_time(NOON, NOON + 43_200), "2026-11-24T00:00Z");
        assert_eq!(clock_time(NOON, i64::MAX), "");
    }
}
