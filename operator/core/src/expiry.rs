//! When the object of a job that has ended is deleted: `spec.ttlSecondsAfterFinished`.

use hyperflow_api::ShardJobStatus;

use crate::{Now, status::is_terminal};

/// What is to become of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays until somebody deletes it.
    Never,
    /// It goes, once the job has ended, of which this status knows nothing.
    NotEnded,
    /// Its time is over in so many seconds.
    In(u64),
    /// Its time is over.
    Over,
}

/// Decides by what is in the API server alone, so that a restart of the operator changes nothing. The time begins when
/// the job became Complete or Failed, whatever it failed of.
#[must_use]
pub fn expiry(now: Now, status: &ShardJobStatus, generation: i64, ttl: Option<i32>) -> Expiry {
    let Some(ttl) = ttl else { return Expiry::Never };
    let ended = |kind: &&str| {
        let end = status.conditions.iter().find(|it| it.type_ == **kind && it.status == "True")?;
        Some(end.last_transition_time.0.as_second())
    };
    let ended = ["Complete", "Failed"].iter().find_map(ended);
    let Some(ended) = ended.filter(|_| is_terminal(status, generation)) else { return Expiry::NotEnded };
    let over = ended.saturating_add(ttl.max(0).into());
    match u64::try_from(over.saturating_sub(now.unix)) {
        Ok(left @ 1..) => Expiry::In(left),
        _ => Expiry::Over,
    }
}

#[cfg(test)]
mod tests {
    use hyperflow_api::status::PlanStatus;
    use k8s_openapi::{
        apimachinery::pkg::apis::meta::v1::{Condition, Time},
        jiff::Timestamp,
    };

    use super::*;

    fn ended(kind: &str, status: &str) -> ShardJobStatus {
        let condition = Condition {
            type_: kind.into(),
            status: status.into(),
            reason: "AsItIs".into(),
            message: String::new(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::from_second(1000).unwrap()),
        };
        ShardJobStatus { conditions: vec![condition], observed_generation: Some(1), ..ShardJobStatus::default() }
    }

    fn at(unix: i64) -> Now {
        Now { millis: 5, unix }
    }

    #[test]
    fn the_time_begins_with_the_end_whichever_it_was() {
        for kind in ["Complete", "Failed"] {
            let status = ended(kind, "True");
            assert_eq!(expiry(at(1000), &status, 1, Some(60)), Expiry::In(60));
            assert_eq!(expiry(at(1059), &status, 1, Some(60)), Expiry::In(1));
            assert_eq!(expiry(at(1060), &status, 1, Some(60)), Expiry::Over);
            assert_eq!(expiry(at(1000), &status, 1, Some(0)), Expiry::Over);
            assert_eq!(expiry(at(9999), &status, 1, None), Expiry::Never);
            assert_eq!(expiry(at(0), &status, 1, Some(i32::MAX)), Expiry::In(2_147_484_647));
        }
    }

    #[test]
    fn what_has_not_ended_stays() {
        assert_eq!(expiry(at(9999), &ShardJobStatus::default(), 1, Some(0)), Expiry::NotEnded);
        assert_eq!(expiry(at(9999), &ended("Complete", "False"), 1, Some(0)), Expiry::NotEnded);
        assert_eq!(expiry(at(9999), &ended("Stalled", "True"), 1, Some(0)), Expiry::NotEnded);
    }

    #[test]
    fn a_job_that_failed_without_a_plan_and_was_corrected_has_not_ended() {
        let failed = ended("Failed", "True");
        assert_eq!(expiry(at(9999), &failed, 2, Some(0)), Expiry::NotEnded);
        let planned = ShardJobStatus { plan: Some(PlanStatus::default()), ..failed };
        assert_eq!(expiry(at(9999), &planned, 2, Some(0)), Expiry::Over);
    }
}
