//! What turns out to be wrong when the data is looked at ends the job with a reason and a remedy, and nothing half-made
//! stays. An empty file is nothing wrong.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use hyperflow_e2e::{
    Result,
    cluster::Place,
    ensure,
    job::{self, Job},
    oracle,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

pub async fn keeps(place: &Place) -> Result {
    missing_file_may_be_corrected(place).await?;
    existing_output_is_never_overwritten(place).await?;
    empty_file_completes(place).await?;
    shrinking_input_is_noticed(place).await?;
    place.empty_output()?;
    vanished_input_is_named(place).await?;
    two_jobs_do_not_share_an_output(place).await?;
    input_that_cannot_be_used_is_named(place).await
}

async fn fails(job: &Job, reason: &str, words: &[&str]) -> Result {
    let (said, message) = job.failed(LIMIT).await?;
    ensure(said == reason, || format!("failed with {said}, not {reason}: {message}"))?;
    for word in words {
        ensure(message.contains(word), || format!("'{message}' does not say '{word}'"))?;
    }
    let status = job.status().await?;
    ensure(job::has(&status, "Stalled") && !job::has(&status, "Reconciling"), || format!("{:?}", status.conditions))
}

/// Waits until the job is Complete, which may have been Failed.
async fn completes_after_all(job: &Job) -> Result {
    let start = std::time::Instant::now();
    while !job::has(&job.status().await?, "Complete") {
        ensure(start.elapsed() < LIMIT, || format!("{} is not Complete in {LIMIT:?}", job.name))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn missing_file_may_be_corrected(place: &Place) -> Result {
    place.write_input("inputs", 1000, 1)?;
    let job = place.apply(super::copy("missing", "4Mi", "1G", 1, 1)).await?;
    fails(&job, "NoInput", &["file:///data/in/input", "inputs", "it may be changed until there is a plan"]).await?;
    let out = place.path("out");
    ensure(oracle::parts(&out)?.is_empty() && !out.join("_hyperflow/claims").join("x").exists(), || {
        "left over".into()
    })?;
    let input = place.path("in").join("inputs");
    job.patch(json!({"spec": {"source": {"files": {"url": "file:///data/in/inputs"}}}})).await?;
    completes_after_all(&job).await?;
    oracle::check_copy(&input, &out, 1)?;
    place.empty_output()
}

async fn existing_output_is_never_overwritten(place: &Place) -> Result {
    place.write_input("input", 10 << 20, 1)?;
    let theirs = place.path("out").join("part-000001");
    fs::write(&theirs, "precious")?;
    let job = place.apply(super::copy("exists", "4Mi", "1G", 1, 1)).await?;
    let words = ["file:///data/out/part-000001", "was not written by Hyperflow", "not overwritten"];
    fails(&job, "OutputExists", &words).await?;
    ensure(fs::read_to_string(&theirs)? == "precious", || "it was overwritten".into())?;
    let parts = oracle::parts(&place.path("out"))?;
    ensure(parts == [theirs], || format!("half-made results stay: {parts:?}"))?;
    place.empty_output()
}

async fn empty_file_completes(place: &Place) -> Result {
    place.write_input("input", 0, 1)?;
    let job = place.apply(super::copy("empty", "4Mi", "1G", 1, 1)).await?;
    let status = job.complete(LIMIT).await?;
    ensure(job::shards(&status).total == 0, || format!("{:?}", status.shards))?;
    ensure(oracle::parts(&place.path("out"))?.is_empty(), || "an empty file makes no parts".into())?;
    place.empty_output()
}

async fn shrinking_input_is_noticed(place: &Place) -> Result {
    let input = place.write_input("input", 24 << 20, 1)?;
    let job = place.apply(super::copy("shrinks", "8Mi", "4Mi", 1, 1)).await?;
    let under_way =
        |status: &_| job::attempts(status).ok()?.iter().any(|attempt| attempt.checkpoint.is_some()).then_some(());
    job.wait("a checkpoint", LIMIT, under_way).await?;
    fs::OpenOptions::new().write(true).open(&input)?.set_len(3 << 20)?;
    fails(&job, "InputChanged", &["file:///data/in/input", "Create a new ShardJob"]).await?;
    let output = place.path("out");
    for part in oracle::parts(&output)? {
        let size = fs::metadata(&part)?.len();
        ensure(size == 8 << 20, || format!("{} is half-made: {size} bytes", part.display()))?;
    }
    ensure(!oracle::job_folder(&output)?.join("stage").exists(), || "temporary files stay".into())
}

async fn vanished_input_is_named(place: &Place) -> Result {
    place.write("in/going/a", &oracle::noise(16 << 20, 1))?;
    place.write("in/going/b", b"gone soon")?;
    let mut manifest = super::copy("vanishes", "4Mi", "4Mi", 1, 1);
    manifest["spec"]["source"] = json!({"files": {"url": "file:///data/in/going/", "boundary": "File"}});
    let job = place.apply(manifest).await?;
    let under_way =
        |status: &_| job::attempts(status).ok()?.iter().any(|attempt| attempt.checkpoint.is_some()).then_some(());
    job.wait("a checkpoint", LIMIT, under_way).await?;
    // The folder: a file that is moved itself has another time then.
    let (folder, elsewhere) = (place.path("in/going"), place.path("elsewhere"));
    fs::rename(&folder, &elsewhere)?;
    let remedy = "It was there when the plan was made. When it is back as it was, set another `spec.rerun.nonce`";
    fails(&job, "NoInput", &["/data/in/going/b'", remedy]).await?;
    fs::rename(&elsewhere, &folder)?;
    job.patch(json!({"spec": {"rerun": {"nonce": "back"}}})).await?;
    completes_after_all(&job).await?;
    place.empty_output()
}

/// Both are created at once, and are of different input: one of them completes as if it were alone.
async fn two_jobs_do_not_share_an_output(place: &Place) -> Result {
    let mut jobs = Vec::new();
    for (seed, name) in [(1, "one"), (2, "two")] {
        place.write_input(name, 6 << 20, seed)?;
        let mut manifest = super::copy(name, "1Mi", "1G", 1, 1);
        manifest["spec"]["source"]["files"]["url"] = json!(format!("file:///data/in/{name}"));
        jobs.push(place.apply(manifest).await?);
    }
    let mut completed = Vec::new();
    for job in &jobs {
        let ended = |status: &_| match (job::has(status, "Complete"), job::has(status, "Failed")) {
            (false, false) => None,
            (complete, _) => Some(complete),
        };
        match job.wait("its end", LIMIT, ended).await?.0 {
            true => completed.push(job),
            false => {
                let words = ["belongs to ShardJob '", "choose another `spec.output.url`"];
                fails(job, "OutputClaimed", &words).await?;
            }
        }
    }
    let [winner] = completed[..] else { return Err(format!("{} of two jobs completed", completed.len()).into()) };
    oracle::check_copy(&place.path("in").join(&winner.name), &place.path("out"), 6)?;
    place.empty_output()
}

/// A source of files, how results are named, and what is said when it is looked at.
type Case = (&'static str, Value, &'static str, &'static str, &'static [&'static str]);

async fn input_that_cannot_be_used_is_named(place: &Place) -> Result {
    symlink("/etc/hosts", place.path("in/link"))?;
    for name in ["in/secret", "in/private/secret"] {
        let secret = place.write(name, b"secret")?;
        chown(&secret, Some(0), Some(0))?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    }
    place.write("in/docs/report.PDF", b"x")?;
    place.write("in/packed/reads.fastq.gz", &[&[0x1f, 0x8b, 8, 0], &oracle::noise(10_000, 1)[..]].concat())?;
    place.write("in/alike/a.pdf", b"one")?;
    place.write("in/alike/a.txt", b"two")?;
    // A byte more than a million shards of the smallest size; it takes no room.
    fs::File::create(place.path("in/sparse"))?.set_len(1_000_000 * 4096 + 1)?;
    place.write("in/list", b"/data/in/docs/report.PDF\n\ns3://bucket/x\n")?;
    let cases = cases();
    let mut tried = Vec::new();
    for case in &cases {
        tried.push(is_named(place, case));
    }
    stream::iter(tried).buffer_unordered(3).try_collect::<()>().await?;
    let left = oracle::tree(&place.path("out"))?;
    ensure(left.is_empty(), || format!("jobs that had no plan left {:?}", left.keys()))?;
    denied_input_is_listed(place).await
}

/// A file of a directory is opened only after the plan: it is in the list of what is left to do.
async fn denied_input_is_listed(place: &Place) -> Result {
    let files = json!({"url": "file:///data/in/private/", "boundary": "File"});
    let job = place.apply(super::copy_of("denied-below", &files, "file:///data/out/", "{dir}{name}")).await?;
    fails(&job, "InputDenied", &["/data/in/private/secret'", "Allow uid 65532 to read it"]).await?;
    ensure(oracle::parts(&place.path("out"))?.is_empty(), || "something was published".into())?;
    let start = std::time::Instant::now();
    let report = loop {
        match job.status().await?.report {
            Some(report) => break report.url,
            None => ensure(start.elapsed() < LIMIT, || "there is no report".into())?,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let list = fs::read_to_string(place.path_of(&report)?.with_file_name("failed.txt"))?;
    ensure(list == "file:///data/in/private/secret\n", || format!("failed input is {list:?}"))
}

fn cases() -> Vec<Case> {
    let file = |url: &str, boundary: &str| json!({"url": url, "boundary": boundary});
    let cut = |url: &str, boundary: &str| json!({"url": url, "boundary": boundary, "bytesPerShard": "4Ki"});
    vec![
        (
            "link-out",
            file("file:///data/in/link", "File"),
            "{name}",
            "OutsideVolumes",
            &["'/data/in/link' leads to '/etc/hosts'", "Mount the volume it is on, or choose another path"],
        ),
        (
            "denied",
            cut("file:///data/in/secret", "Byte"),
            "{index}",
            "InputDenied",
            &["/data/in/secret'", "Allow uid 65532 to read it, or set `spec.workers.securityContext`"],
        ),
        (
            "no-match",
            json!({"url": "file:///data/in/docs/", "boundary": "File", "include": ["**/*.pdf"]}),
            "{dir}{name}",
            "NoInput",
            &["no file under 'file:///data/in/docs/' matches `include` '**/*.pdf' (0 of 1 files; the nearest is \
               'report.PDF'). Correct `spec.source.files`: it may be changed until there is a plan."],
        ),
        (
            "no-slash",
            file("file:///data/in/docs", "File"),
            "{name}",
            "NoInput",
            &["a directory must end with '/': use 'file:///data/in/docs/'"],
        ),
        (
            "no-glob",
            json!({"url": "file:///data/in/docs/", "boundary": "File", "include": ["[x"]}),
            "{name}",
            "InvalidSpec",
            &["spec.source.files.include: '[x' is no glob"],
        ),
        (
            "compressed",
            cut("file:///data/in/packed/", "Line"),
            "{index}",
            "InputNotSplittable",
            &["'reads.fastq.gz' is gzip and cannot be cut: set `spec.source.files.boundary` to 'File'"],
        ),
        (
            "collision",
            file("file:///data/in/alike/", "File"),
            "{stem}.x",
            "OutputNameCollision",
            &["the results of 'a.pdf' and 'a.txt' would both be 'a.x'", "for example '{dir}{name}'"],
        ),
        (
            "too-many",
            cut("file:///data/in/sparse", "Byte"),
            "{index}",
            "TooManyShards",
            &["it makes more than 1000000 shards; raise `bytesPerShard` in `spec.source`"],
        ),
        (
            "bad-line",
            json!({"manifest": {"url": "file:///data/in/list"}, "boundary": "File"}),
            "{name}",
            "ManifestInvalid",
            &["line 3", "s3://bucket/x", "is a URL that cannot be read. Use 'file:///…' or an absolute path"],
        ),
    ]
}

async fn is_named(place: &Place, (name, files, path, reason, words): &Case) -> Result {
    let output = format!("file:///data/out/{name}/");
    let mut manifest = super::copy_of(name, files, &output, path);
    manifest["spec"]["parallelism"] = json!(1);
    let job = place.apply(manifest).await?;
    fails(&job, reason, words).await.map_err(|error| format!("{name}: {error}").into())
}
