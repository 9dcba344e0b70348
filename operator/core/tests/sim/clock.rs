//! Clocks: each process has its own, which goes a little wrong, from a zero that means nothing.

use hyperflow_core::Now;

use super::chance::Chance;

/// Seconds since 1970 when the world begins.
const EPOCH: i64 = 1_763_900_000;

/// Most seconds by which two machines disagree about the date.
const SKEW: u64 = 600;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Its milliseconds for a thousand true ones.
    rate: u64,
    zero: u64,
    skew: i64,
}

impl Clock {
    pub fn draw(chance: &mut Chance) -> Self {
        let skew = if chance.once_in(4) { i64::try_from(chance.below(2 * SKEW)).unwrap() - 600 } else { 0 };
        Self { rate: 950 + chance.below(101), zero: chance.below(1_000_000), skew }
    }

    /// What it shows at a true time.
    pub fn now(&self, at: u64) -> Now {
        Now { millis: self.zero + at * self.rate / 1000, unix: EPOCH + self.skew + i64::try_from(at / 1000).unwrap() }
    }

    /// The first true time at which it shows so many milliseconds.
    pub fn when(&self, millis: u64) -> u64 {
        (millis.saturating_sub(self.zero) * 1000).div_ceil(self.rate)
    }
}
