//! How many shards may fail while the job still ends Complete, and when it stops before its end.

use hyperflow_api::{
    failure::{FailurePolicy, WhenExceeded},
    message::FailureClass,
    status::FailureSample,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::{
    job::{Refusal, refuse},
    reasons::{OUTPUT_FULL, POISON},
    shards::Shards,
};

/// So many shards that all failed alike, before any succeeded, are enough to know that the others will too.
pub const ALIKE: u32 = 20;

/// `maxFailedShards` and `whenExceeded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    most: Most,
    /// The job fails as soon as it is certain that it will.
    pub stops: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Most {
    Shards(u32),
    Percent(u32),
}

impl Tolerance {
    pub(crate) fn check(policy: &FailurePolicy) -> Result<Self, Refusal> {
        const REMEDY: &str = "must be a number from 0 on, or a percentage such as '1%'";
        let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let percent = |text: &str| text.strip_suffix('%').filter(digits)?.parse::<u8>().ok();
        let most = match &policy.max_failed_shards {
            IntOrString::Int(number) => u32::try_from(*number).ok().map(Most::Shards),
            IntOrString::String(text) => {
                percent(text).filter(|percent| *percent <= 100).map(|it| Most::Percent(it.into()))
            }
        };
        let Some(most) = most else { return refuse("spec.failurePolicy.maxFailedShards", REMEDY) };
        let stops = match policy.when_exceeded {
            WhenExceeded::Finish => false,
            WhenExceeded::Stop => true,
            WhenExceeded::Unknown => {
                let message = "is not known to this version of the operator; use 'Finish' or 'Stop'";
                return refuse("spec.failurePolicy.whenExceeded", message);
            }
        };
        Ok(Self { most, stops })
    }

    /// Of a plan of `total` shards so many may fail: a percentage is rounded down, so that it is never exceeded.
    #[must_use]
    pub fn allowed(&self, total: u32) -> u32 {
        match self.most {
            Most::Shards(number) => number.min(total),
            Most::Percent(percent) => u32::try_from(u64::from(total) * u64::from(percent) / 100).unwrap_or(total),
        }
    }

    /// Whether more shards failed than may.
    #[must_use]
    pub fn is_exceeded(&self, shards: &Shards) -> bool {
        shards.failed().len() > self.allowed(shards.total())
    }
}

/// The failure that is every shard's: [`ALIKE`] shards or more were given up, none was ever published, and all failures of
/// shards are of one class and reason. What happened to workers and the output is no failure of a shard. Told from what
/// status holds, so that another operator comes to the same.
#[must_use]
pub fn all_fail_alike<'a>(shards: &Shards, failures: &'a [FailureSample]) -> Option<&'a FailureSample> {
    if !shards.done().is_empty() || shards.failed().len() < ALIKE {
        return None;
    }
    let mut kinds = failures.iter().filter(|sample| sample.index.is_some() && is_of_shard(sample));
    let first = kinds.next()?;
    let poison = failures.iter().any(|sample| sample.reason == POISON);
    (kinds.next().is_none() && !poison).then_some(first)
}

fn is_of_shard(sample: &FailureSample) -> bool {
    use FailureClass::{Evicted, ImagePull, NodeLost, Preempted, WorkerLost};
    let elsewhere = [WorkerLost, NodeLost, Evicted, Preempted, ImagePull];
    sample.reason != OUTPUT_FULL && !elsewhere.iter().any(|class| class.name() == sample.class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ranges::RangeSet, shards::Shards};

    fn tolerance(most: IntOrString) -> Result<Tolerance, Refusal> {
        Tolerance::check(&FailurePolicy { max_failed_shards: most, ..FailurePolicy::default() })
    }

    fn text(text: &str) -> IntOrString {
        IntOrString::String(text.into())
    }

    #[test]
    fn a_percentage_is_of_the_plan_and_rounded_down() {
        for (most, total, allowed) in [
            (text("1%"), 99, 0),
            (text("1%"), 100, 1),
            (text("1%"), 199, 1),
            (text("34%"), 3, 1),
            (text("100%"), 1_000_000, 1_000_000),
            (text("0%"), 1000, 0),
            (IntOrString::Int(7), 5, 5),
            (IntOrString::Int(0), 5, 0),
        ] {
            assert_eq!(tolerance(most.clone()).unwrap().allowed(total), allowed, "{most:?} of {total}");
        }
    }

    #[test]
    fn what_is_no_number_and_no_percentage_is_refused() {
        for junk in [text("101%"), text("1"), text("-1%"), text("+1%"), text("%"), text("1.5%"), IntOrString::Int(-1)] {
            let refused = tolerance(junk.clone());
            assert_eq!(refused.map_err(|it| it.field), Err("spec.failurePolicy.maxFailedShards"), "{junk:?}");
        }
    }

    fn sample(class: FailureClass, reason: &str, index: Option<i32>) -> FailureSample {
        FailureSample { class: class.name().into(), reason: reason.into(), count: 1, index, ..FailureSample::default() }
    }

    #[test]
    fn twenty_that_fail_alike_and_none_that_succeeded_are_enough() {
        let shards = |done: u32, failed: u32| {
            Shards::resume(
                100,
                30,
                RangeSet::of(50..50 + done),
                RangeSet::of(0..failed),
                std::collections::BTreeMap::new(),
            )
        };
        let exit = sample(FailureClass::Application, "ExitCode2", Some(3));
        let lost = sample(FailureClass::WorkerLost, "WorkerLost", Some(4));
        let of_pod = sample(FailureClass::OutOfMemory, "OOMKilled", None);
        let alike = [lost.clone(), exit.clone(), of_pod];
        assert_eq!(all_fail_alike(&shards(0, 20), &alike), Some(&exit));
        assert_eq!(all_fail_alike(&shards(0, 19), &alike), None);
        assert_eq!(all_fail_alike(&shards(1, 20), &alike), None, "one succeeded");
        let other = sample(FailureClass::Application, "ExitCode3", Some(9));
        assert_eq!(all_fail_alike(&shards(0, 20), &[exit.clone(), other]), None);
        assert_eq!(all_fail_alike(&shards(0, 20), &[exit, sample(FailureClass::WorkerLost, POISON, Some(1))]), None);
        assert_eq!(all_fail_alike(&shards(0, 20), &[lost]), None);
    }
}
