//! Input may be a list: of files, in a file or in a ConfigMap; of items, in a ConfigMap or in the spec itself.

use std::time::Duration;

use hyperflow_api::ShardJobStatus;
use hyperflow_e2e::{
    Result,
    cluster::Place,
    command, ensure,
    job::shards,
    oracle::{self, Tree},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

pub async fn keeps(place: &Place) -> Result {
    for (seed, name) in (1..).zip(["a", "b/c d", "b/x#1", "b/not listed"]) {
        place.write_input(name, 5000, seed)?;
    }
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lists"},
        "data": {
            "files": "/data/in/b/x#1\nfile:///data/in/a\n",
            "items": "one\n\n two \nthree, \"quoted\"\r\nfour\nfive"
        }
    });
    let args = ["apply", "--namespace", &place.namespace, "--filename", "-"];
    command::run_with("kubectl", &args, &map.to_string()).await?;
    tokio::try_join!(files_in_a_file(place), files_in_a_map(place), items_in_a_map(place), items_in_the_spec(place))?;
    Ok(())
}

fn read(place: &Place, name: &str) -> Result<Vec<u8>> {
    Ok(std::fs::read(place.path("in").join(name))?)
}

/// Their paths are relative to the volume, or in the list to the list.
async fn files_in_a_file(place: &Place) -> Result {
    place.write("in/b/list", "file:///data/in/b/c d\n\n/data/in/a\r\nx#1".as_bytes())?;
    let source = json!({"manifest": {"url": "file:///data/in/b/list"}, "boundary": "File"});
    let job = place.apply(super::copy_of("listed", &source, "file:///data/out/listed/", "{dir}{name}")).await?;
    let status = job.complete(LIMIT).await?;
    counted(&status, 3, 3)?;
    let wanted: Result<Tree> =
        ["a", "b/c d", "b/x#1"].iter().map(|name| Ok((format!("in/{name}"), read(place, name)?))).collect();
    oracle::same(&oracle::tree(&place.path("out/listed"))?, &wanted?)
}

/// In the order of the list.
async fn files_in_a_map(place: &Place) -> Result {
    let source = json!({
        "manifest": {"configMapKeyRef": {"name": "lists", "key": "files"}}, "boundary": "File", "filesPerShard": 2
    });
    let job = place.apply(super::copy_of("mapped", &source, "file:///data/out/mapped/", "part-{index}")).await?;
    counted(&job.complete(LIMIT).await?, 1, 2)?;
    let wanted = [read(place, "b/x#1")?, read(place, "a")?].concat();
    oracle::same(&oracle::tree(&place.path("out/mapped"))?, &Tree::from([("part-000000".into(), wanted)]))
}

/// Each line as it stands is an item; the plan has them in their order.
async fn items_in_a_map(place: &Place) -> Result {
    let source = json!({
        "items": {"manifest": {"configMapKeyRef": {"name": "lists", "key": "items"}}, "itemsPerShard": 2}
    });
    let job = place.apply(super::kept("items", source, json!({"noop": {}}))).await?;
    let status = job.complete(LIMIT).await?;
    counted(&status, 3, 0)?;
    let url = status.plan.unwrap_or_default().url.ok_or("the plan is nowhere")?;
    let plan = std::fs::read_to_string(place.path_of(&url)?)?;
    let lines = plan.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
    let items: Vec<&str> = lines.iter().filter_map(|line| line["item"].as_str()).collect();
    let wanted = ["one", " two ", "three, \"quoted\"", "four", "five"];
    ensure(items == wanted, || format!("the plan has items {items:?}"))
}

/// The spec is the list: nothing is kept anywhere.
async fn items_in_the_spec(place: &Place) -> Result {
    let mut manifest = super::numbers("values");
    manifest["spec"]["source"] = json!({"items": {"values": ["one", "", "three"], "itemsPerShard": 2}});
    let status = place.apply(manifest).await?.complete(LIMIT).await?;
    counted(&status, 2, 0)?;
    let kept = status.plan.as_ref().is_some_and(|plan| plan.url.is_some()) || status.report.is_some();
    ensure(!kept, || format!("{:?}, {:?}", status.plan, status.report))
}

fn counted(status: &ShardJobStatus, wanted: i32, files: i64) -> Result {
    let (counts, plan) = (shards(status), status.plan.clone().unwrap_or_default());
    let right = (counts.total, counts.succeeded, plan.shards, plan.files) == (wanted, wanted, wanted, files);
    ensure(right, || format!("not {wanted} shards of {files} files: {counts:?}, {plan:?}"))
}
