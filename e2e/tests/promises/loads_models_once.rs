//! `lifetime: Slot`: a program that is slow to start is started once for each slot, whatever happens to single shards; one
//! that crashes, hangs or says nonsense is replaced, and only its shard pays.

use std::{collections::BTreeSet, fs, time::Duration};

use hyperflow_e2e::{Result, cluster::Place, ensure, job::shards, oracle};
use serde_json::{Value, json};

use super::{BUSYBOX, PYTHON, program};

const LIMIT: Duration = Duration::from_secs(120);

pub async fn keeps(place: &Place) -> Result {
    // The Python one is run with the examples.
    let source = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/programs/slot.sh"))?;
    place.write("in/programs/slot.sh", &source)?;
    tokio::try_join!(loads_once(place), speaks_shell(place), replaces_what_breaks(place))?;
    Ok(())
}

fn slot(name: &str, image: &str, command: &Value, input: &str, count: u32) -> Value {
    let exec = json!({"command": command, "lifetime": "Slot", "input": input, "output": "File"});
    let mut job = program(name, image, json!({"numbers": {"count": count}}), &exec);
    job["spec"]["output"]["url"] = json!(format!("file:///data/out/{name}/"));
    job
}

/// Sixty shards on four slots: the model is loaded four times at most.
async fn loads_once(place: &Place) -> Result {
    let loads = r#"
import json, sys, time, uuid
model = f"model {uuid.uuid4()}"
time.sleep(2)
say = lambda **it: print(json.dumps(it), flush=True)
say(type="ready")
sys.stdin.readline()
for line in sys.stdin:
    shard = json.loads(line)
    open(shard["output"], "w").write(model)
    say(type="done", index=shard["index"])
"#;
    let command = json!(["python3", "-u", "-c", loads]);
    let status = place.apply(slot("model", PYTHON, &command, "None", 60)).await?.complete(LIMIT).await?;
    ensure(shards(&status).succeeded == 60, || format!("{:?}", status.shards))?;
    // Each result says which process made it.
    let results = oracle::tree(&place.path("out/model"))?;
    let loaded: BTreeSet<&Vec<u8>> = results.values().filter(|text| text.starts_with(b"model ")).collect();
    ensure((1..=4).contains(&loaded.len()), || {
        format!("{} models were loaded for {} shards", loaded.len(), results.len())
    })
}

async fn speaks_shell(place: &Place) -> Result {
    let command = json!(["sh", "/data/in/programs/slot.sh"]);
    let status = place.apply(slot("shell", BUSYBOX, &command, "File", 20)).await?.complete(LIMIT).await?;
    ensure(shards(&status).succeeded == 20, || format!("{:?}", status.shards))
}

/// Of forty shards one kills its process, one hangs, one makes it say nonsense, one is called bad: these four fail, each in
/// its own way, and no other.
async fn replaces_what_breaks(place: &Place) -> Result {
    let breaks = r#"
import json, os, sys, time
say = lambda **it: print(json.dumps(it), flush=True)
say(type="ready")
for line in sys.stdin:
    shard = json.loads(line)
    if shard.get("type") != "shard":
        continue
    index = shard["index"]
    if index == 5:
        os.abort()
    if index == 11:
        time.sleep(60)
    if index == 17:
        print("Loading checkpoint shards: 100%", flush=True)
        continue
    if index == 23:
        say(type="failed", index=index, message="the page has no text", **{"class": "BadInput"})
        continue
    open(shard["output"], "w").write(f"{index}\n")
    say(type="done", index=index)
"#;
    let mut job = slot("breaks", PYTHON, &json!(["python3", "-u", "-c", breaks]), "None", 40);
    job["spec"]["failurePolicy"] =
        json!({"maxAttempts": 1, "maxFailedShards": 4, "attemptDeadlineSeconds": 3, "backoff": {"initialSeconds": 1}});
    let status = place.apply(job).await?.complete(LIMIT).await?;
    let counts = shards(&status);
    ensure((counts.succeeded, counts.failed_indexes.as_str()) == (36, "5,11,17,23"), || format!("{counts:?}"))?;
    for (index, class, reason, says) in [
        (5, "Application", "Signal", "SIGABRT"),
        (11, "Timeout", "AttemptDeadline", "3 s"),
        (17, "Application", "SlotProtocol", "Loading checkpoint"),
        (23, "BadInput", "BadInput", "the page has no text"),
    ] {
        let sample = status.failures.iter().find(|sample| sample.index == Some(index));
        let sample = sample.ok_or_else(|| format!("no failure of shard {index}: {:?}", status.failures))?;
        ensure(sample.class == class && sample.reason == reason && sample.message.contains(says), || {
            format!("shard {index}: expected {class} {reason} with '{says}': {sample:?}")
        })?;
    }
    Ok(())
}
