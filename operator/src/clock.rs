//! The time and chance that the core is told of, since it has none of its own.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyperflow_core::Now;
use rustls::crypto::{GetRandomFailed, aws_lc_rs};
use tokio::time::Instant;

/// Zero of [`Now::millis`].
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time, as the core takes it.
#[must_use]
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let millis = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
    Now { millis, unix: i64::try_from(unix).unwrap_or(i64::MAX) }
}

/// The time, in Unix seconds.
#[must_use]
pub fn unix() -> u64 {
    u64::try_from(now().unix).unwrap_or(0)
}

/// The moment that the core calls `millis`.
#[must_use]
pub fn instant(millis: u64) -> Instant {
    // A century from now is never: adding more could overflow.
    *START + Duration::from_millis(millis.min(100 * 366 * 24 * 3_600_000))
}

/// The system has no random bits.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a random number")]
pub struct ChanceError;

/// 64 random bits.
///
/// # Errors
/// When the system has none.
pub fn random_u64() -> Result<u64, ChanceError> {
    let mut bytes = [0; 8];
    aws_lc_rs::default_provider().secure_random.fill(&mut bytes).map_err(|GetRandomFailed| ChanceError)?;
    Ok(u64::from_le_bytes(bytes))
}
