//! Another run of a job that has a plan (P25): whether one is asked for, and which shards it leaves as they are.

use hyperflow_api::{ShardJobSpec, ShardJobStatus, rerun::Scope};

use crate::{
    job::{self, Job},
    ranges::RangeSet,
    shards::Shards,
};

/// Whether the spec asks for a run that the status does not know of. Before there is a plan there is nothing to run again.
#[must_use]
pub fn is_asked(spec: &ShardJobSpec, status: &ShardJobStatus) -> bool {
    status.plan.is_some() && differs(spec, status.observed_rerun_nonce.as_deref())
}

/// Whether the spec has another nonce than the one that was seen last. One that is taken away asks for nothing.
pub(crate) fn differs(spec: &ShardJobSpec, observed: Option<&str>) -> bool {
    spec.rerun.as_ref().is_some_and(|rerun| Some(rerun.nonce.as_str()) != observed)
}

/// The shards that stay published in the run that the spec asks for. `frozen` is what the plan was made of, and
/// `succeeded` says that the last run is Complete.
///
/// # Errors
/// With why there cannot be such a run, and what to do.
pub(crate) fn stays(
    spec: &ShardJobSpec,
    job: &Job,
    shards: &Shards,
    frozen: &str,
    succeeded: bool,
) -> Result<RangeSet, String> {
    let Some(rerun) = &spec.rerun else { return Ok(shards.done().clone()) };
    if !job::have_one_plan(frozen, &job.frozen) {
        return Err("`source`, `output` or `records` were changed after planning: create another ShardJob".into());
    }
    if succeeded && job.finally.as_ref().is_some_and(|last| last.path.as_ref().is_some_and(|path| !path.contains(RUN)))
    {
        return Err(format!("the result of `finally` is published, and is never replaced: {NEEDS} `finally.path`"));
    }
    let keeps_names = !job.names_runs();
    let mut stays = shards.done().clone();
    match rerun.scope {
        Scope::Failed => {}
        Scope::All if keeps_names && !stays.is_empty() => {
            return Err(format!("what was published is never replaced: 'All' {NEEDS} `output.path`"));
        }
        Scope::All => stays = RangeSet::default(),
        Scope::Indexes => {
            let indexes = indexes(rerun.indexes.as_deref().unwrap_or_default())?;
            let beyond = indexes.ranges().last().filter(|range| range.end > shards.total());
            if let Some(range) = beyond {
                let (last, total) = (range.end - 1, shards.total());
                return Err(format!("`rerun.indexes` has {last}, and the plan has {total} shards, from 0 on"));
            }
            for index in indexes.iter() {
                if stays.remove(index) && keeps_names {
                    return Err(format!(
                        "shard {index} is published, and is never replaced: to run it again {NEEDS} `output.path`"
                    ));
                }
            }
        }
        Scope::Unknown => {
            return Err(
                "`rerun.scope` is not known to this version of the operator; use 'Failed', 'All' or 'Indexes'".into()
            );
        }
    }
    Ok(stays)
}

const RUN: &str = "{run}";
const NEEDS: &str = "needs {run} in";

fn indexes(text: &str) -> Result<RangeSet, String> {
    let indexes: RangeSet = text.parse().map_err(|error| format!("`rerun.indexes`: {error}"))?;
    if indexes.is_empty() { Err("`rerun.indexes` names no shard".into()) } else { Ok(indexes) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn spec(path: &str, rerun: &Value) -> ShardJobSpec {
        let spec = json!({
            "source": {"files": {"url": "file:///data/in", "boundary": "Byte", "bytesPerShard": "1Mi"}},
            "task": {"copy": {}}, "output": {"url": "file:///data/out/", "path": path}, "rerun": rerun,
            "workers": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        });
        serde_json::from_value(spec).unwrap()
    }

    fn asked(path: &str, rerun: &Value) -> Result<String, String> {
        let spec = spec(path, rerun);
        let job = Job::check(&spec).unwrap();
        let (done, failed) = ("0-3,7".parse().unwrap(), "4-5".parse().unwrap());
        let shards = Shards::resume(10, 8, done, failed, BTreeMap::new());
        stays(&spec, &job, &shards, &job.frozen, false).map(|stays| stays.to_string())
    }

    #[test]
    fn what_is_published_stays_unless_it_is_asked_for_and_has_a_name_of_its_run() {
        let (plain, named) = ("part-{index}", "{run}/part-{index}");
        assert_eq!(asked(plain, &json!({"nonce": "a"})).unwrap(), "0-3,7");
        assert_eq!(asked(named, &json!({"nonce": "a", "scope": "All"})).unwrap(), "");
        assert!(
            asked(plain, &json!({"nonce": "a", "scope": "All"})).unwrap_err().contains("needs {run} in `output.path`")
        );
        let indexes = |path, indexes: &str| asked(path, &json!({"nonce": "a", "scope": "Indexes", "indexes": indexes}));
        assert_eq!(indexes(named, "2-4").unwrap(), "0-1,7");
        assert_eq!(indexes(plain, "4-6,8").unwrap(), "0-3,7");
        assert!(indexes(plain, "3-4").unwrap_err().contains("shard 3 is published"));
        assert!(indexes(named, "9-10").unwrap_err().contains("has 10, and the plan has 10 shards"));
        assert!(indexes(named, "4,3").unwrap_err().contains("rising"));
        assert!(asked(named, &json!({"nonce": "a", "scope": "Some"})).unwrap_err().contains("not known"));
    }

    #[test]
    fn a_run_has_the_plan_of_the_first() {
        let before = Job::check(&spec("part-{index}", &json!({"nonce": "a"}))).unwrap();
        let changed = spec("piece-{index}", &json!({"nonce": "b"}));
        let job = Job::check(&changed).unwrap();
        assert!(stays(&changed, &job, &Shards::new(3), &before.frozen, false).unwrap_err().contains("create another"));
    }

    #[test]
    fn only_another_nonce_of_a_job_with_a_plan_asks_for_a_run() {
        let planned = |nonce: Option<&str>| ShardJobStatus {
            plan: Some(hyperflow_api::status::PlanStatus::default()),
            observed_rerun_nonce: nonce.map(Into::into),
            ..ShardJobStatus::default()
        };
        let spec = spec("part-{index}", &json!({"nonce": "a"}));
        assert!(is_asked(&spec, &planned(None)) && is_asked(&spec, &planned(Some("b"))));
        assert!(!is_asked(&spec, &planned(Some("a"))) && !is_asked(&spec, &ShardJobStatus::default()));
        assert!(!is_asked(&ShardJobSpec { rerun: None, ..spec }, &planned(Some("b"))));
    }
}
