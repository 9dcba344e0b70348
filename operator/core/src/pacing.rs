//! How long to wait so that a rate is kept: the virtual-clock form of a token bucket (GCRA).

/// A limit on bytes a second, shared by all attempts of a worker.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When everything reserved so far will have been paid for, in nanoseconds.
    paid_until: u64,
}

/// Idle time may be made up for by so much: enough to hide scheduling, too little to be seen as a burst.
const BURST_NANOS: u64 = 50_000_000;
const NANOS: u128 = 1_000_000_000;

impl Pace {
    /// A limit of at least one byte a second.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: 0 }
    }

    /// Reserves `bytes` at `now_nanos` (any clock that never goes back): wait so many nanoseconds before using them.
    pub fn reserve(&mut self, now_nanos: u64, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * NANOS / u128::from(self.bytes_per_second);
        let start = self.paid_until.max(now_nanos.saturating_sub(BURST_NANOS));
        self.paid_until = start.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        start.saturating_sub(now_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_second_of_bytes_takes_a_second() {
        let mut pace = Pace::new(1000);
        let mut now = 10 * SECOND;
        let start = now;
        for _ in 0..20 {
            now += pace.reserve(now, 100);
        }
        let took = now - start;
        assert!((SECOND + 700_000_000..2 * SECOND).contains(&took), "2000 bytes took {took} ns");
    }

    #[test]
    fn time_that_was_not_used_is_not_saved_up() {
        let mut pace = Pace::new(1000);
        assert_eq!(pace.reserve(3600 * SECOND, 1000), 0);
        assert!(pace.reserve(3600 * SECOND, 1) >= SECOND - BURST_NANOS);
    }
}
