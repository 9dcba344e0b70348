//! The API server is away for half a minute: workers publish all the while, and status is right five seconds after it
//! answers again.

use std::time::{Duration, Instant};

use hyperflow_api::ShardJob;
use hyperflow_e2e::{Result, cluster::Place, control::Part, ensure, harness, job::shards, oracle};
use kube::Api;

const MIB: usize = 1 << 20;
/// Something is published at least so often.
const STEP: Duration = Duration::from_secs(5);
/// How long status may take to say what was published meanwhile.
const CATCH_UP: Duration = Duration::from_secs(5);

pub async fn keeps(place: &Place) -> Result {
    let steps = if harness::soak() { 18 } else { 6 };
    outage(place, Part::ApiServer, steps).await
}

/// Takes a part of the control plane away for so many steps of five seconds.
pub async fn outage(place: &Place, part: Part, steps: u32) -> Result {
    // Two MiB a second in all: ten shards a step, and enough for before and for the way back.
    let megabytes = 10 * steps + 50;
    let input = place.write_input("input", megabytes as usize * MIB, 8)?;
    let output = place.path("out");
    let job = place.apply(super::copy("outage", "1Mi", "2Mi", 2, 2)).await?;
    let diary = place.diary(&job).await?;
    let some_done = |status: &_| (shards(status).succeeded >= 4).then_some(());
    job.wait("four shards done", Duration::from_secs(60), some_done).await?;

    let meanwhile = async {
        let mut counts = vec![oracle::commits(&output)?];
        for _ in 0..steps {
            tokio::time::sleep(STEP).await;
            counts.push(oracle::commits(&output)?);
        }
        Ok((counts, Instant::now()))
    };
    let ((counts, ended), back) = place.cluster.without(part, meanwhile).await?;
    println!("     commits every {STEP:?}: {counts:?}, back {:.1?} later", back - ended);
    let (published, took) = caught_up(place, &job.name, back).await?;
    println!("     status said that {published} were done {took:.1?} after the first answer");
    let stood_still = counts.iter().zip(counts.iter().skip(1)).any(|(before, after)| before == after);
    ensure(!stood_still, || format!("workers stood still: {counts:?}"))?;
    ensure(published < megabytes as usize, || "nothing was left to do afterwards".into())?;

    job.complete(Duration::from_secs(120)).await?;
    diary.close().await?;
    let records = oracle::check_copy(&input, &output, megabytes)?;
    let again: Vec<_> = records.iter().filter(|record| record.found || record.attempt > 1).collect();
    ensure(again.is_empty(), || format!("shards ran again though their workers lived: {again:?}"))?;
    place.cluster.mended().await?;
    ensure(took <= CATCH_UP, || format!("status was right only after {took:?}"))
}

/// Asks for the status until it says what was published when the first answer came; how much that was, and how long after
/// that answer. A watch would not do: after an outage the API server itself is late to send what changes. Nor is ready a
/// word to rely on: without etcd it takes the API server a while longer to find it again for every resource.
async fn caught_up(place: &Place, job: &str, back: Instant) -> Result<(usize, Duration)> {
    let api: Api<ShardJob> = Api::namespaced(place.cluster.impatient().await?, &place.namespace);
    let mut first = None;
    loop {
        if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_millis(500), api.get(job)).await {
            let (published, since) = *match &mut first {
                Some(known) => known,
                none => none.insert((oracle::commits(&place.path("out"))?, Instant::now())),
            };
            let done = shards(&answer.status.unwrap_or_default()).succeeded;
            if usize::try_from(done)? >= published {
                println!("     the first answer came {:.1?} after it was ready", since - back);
                return Ok((published, since.elapsed()));
            }
        }
        ensure(back.elapsed() < Duration::from_secs(60), || "status was not right within a minute".into())?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
