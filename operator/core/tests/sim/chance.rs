//! Chance by seed: SplitMix64, fixed by name so that a recorded seed means the same for ever.

pub struct Chance(pub u64);

impl Chance {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// True about once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some, if there are any.
    pub fn pick<T: Copy>(&mut self, some: &[T]) -> Option<T> {
        let place = usize::try_from(self.below(some.len() as u64)).unwrap();
        some.get(place).copied()
    }
}

/// A number that looks like chance and is always the same.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
