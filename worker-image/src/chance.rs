//! Random numbers, from the kernel.

use std::{io, time::Duration};

use rustix::rand::{GetRandomFlags, getrandom};

/// 64 random bits.
///
/// # Errors
/// When the kernel has none.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // Up to 256 bytes come whole or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Between half of `most` and all of it, so that many workers do not come at the same moment.
pub fn jitter(most: Duration) -> Duration {
    let half = most / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    most - Duration::from_nanos(random().unwrap_or(0) % nanos.max(1))
}

/// A number below `end`, or 0.
pub fn below(end: usize) -> usize {
    let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
    usize::try_from(random().unwrap_or(0) % end).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_between_half_and_all() {
        let most = Duration::from_millis(100);
        for _ in 0..100 {
            assert!((most / 2..=most).contains(&jitter(most)));
        }
        assert_eq!(jitter(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn processes_that_start_together_draw_different_numbers() {
        assert_ne!(random().unwrap(), random().unwrap());
        assert_eq!(below(0), 0);
        assert!((0..100).all(|_| below(3) < 3));
    }
}
