//! A program runs unchanged in its own image, however it wants its input and leaves its result: a pipeline of a shell over
//! real text with a merge at the end, a compressor, numerical Python, and a static binary in an image with nothing else.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio, time::Duration};

use hyperflow_e2e::{
    Result,
    cluster::{Place, VOLUMES},
    ensure,
    job::shards,
    oracle::{self, Tree},
};
use serde_json::{Value, json};

use super::{BUSYBOX, PYTHON, STATIC, program};

const LIMIT: Duration = Duration::from_secs(120);

pub async fn keeps(place: &Place) -> Result {
    let texts = texts(place)?;
    let few: Tree = texts
        .iter()
        .filter(|(name, _)| name.starts_with("process/"))
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    tokio::try_join!(
        counts_words(place, &texts),
        compresses(place, &few),
        computes(place),
        needs_nothing(place, &few),
        is_told_everything(place),
        makes_directories(place),
    )?;
    Ok(())
}

/// A part of the kernel's documentation, which `make e2e` unpacks.
fn texts(place: &Place) -> Result<Tree> {
    let folder = Path::new(VOLUMES).join("linux-documentation");
    let texts = oracle::tree(&folder).map_err(|error| format!("{error}: run 'make e2e', which unpacks it"))?;
    for (name, bytes) in &texts {
        place.write(&format!("in/texts/{name}"), bytes)?;
    }
    ensure(texts.len() > 100, || format!("only {} texts", texts.len()))?;
    Ok(texts)
}

fn files(more: &Value) -> Value {
    let mut files = json!({"url": "file:///data/in/texts/", "boundary": "File"});
    if let (Some(files), Some(more)) = (files.as_object_mut(), more.as_object()) {
        files.extend(more.clone());
    }
    json!({"files": files})
}

/// Words of each shard, counted by a shell line, then added up by `finally` from the results that the report names.
async fn counts_words(place: &Place, texts: &Tree) -> Result {
    let count = "tr -cs A-Za-z '\\n' | awk '$1 { n[$1]++ } END { for (w in n) print w, n[w] }'";
    let exec = json!({"command": ["sh", "-c", count], "input": "Stdin", "output": "Stdout"});
    let mut job = program("words", BUSYBOX, files(&json!({"filesPerShard": 100})), &exec);
    job["spec"]["output"] = json!({"url": "file:///data/out/words/", "path": "part-{index}"});
    // The report is stdin, too; here its results are read from where they are.
    let merge = "cat \"$HYPERFLOW_REPORT\" | grep -o 'file://[^\"]*/part-[0-9]*' | cut -c8- | xargs cat | \
                 awk '{ n[$1] += $2 } END { for (w in n) print w, n[w] }' | sort";
    job["spec"]["finally"] = json!({"command": ["sh", "-c", merge], "output": "Stdout", "path": "words.txt"});
    let job = place.apply(job).await?;
    let status = job.complete(LIMIT).await?;
    ensure(shards(&status).total > 3, || format!("{:?}", status.shards))?;

    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts.values() {
        let words = text.split(|letter| !letter.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        words.filter_map(|word| std::str::from_utf8(word).ok()).for_each(|word| *wanted.entry(word).or_default() += 1);
    }
    let found = fs::read_to_string(place.path("out/words/words.txt"))?;
    let found: BTreeMap<&str, usize> = found
        .lines()
        .map(|line| line.split_once(' ').and_then(|(word, count)| Some((word, count.parse().ok()?))))
        .collect::<Option<_>>()
        .ok_or("words.txt has another form")?;
    ensure(found == wanted, || format!("{} words, expected {}", found.len(), wanted.len()))
}

/// Each file by `zstd`, from a file to a file of the same name and one letter more.
async fn compresses(place: &Place, texts: &Tree) -> Result {
    let exec = json!({
        "command": ["zstd", "-q", "-19", "$(HYPERFLOW_INPUT)", "-o", "$(HYPERFLOW_OUTPUT)"], "input": "File", "output": "File"
    });
    let few = json!({"include": ["process/**"]});
    let mut job = program("zstd", PYTHON, files(&few), &exec);
    job["spec"]["output"] = json!({"url": "file:///data/out/zstd/", "path": "{dir}{name}.zst"});
    place.apply(job).await?.complete(LIMIT).await?;
    let results = oracle::tree(&place.path("out/zstd"))?;
    ensure(results.len() == texts.len(), || format!("{} results", results.len()))?;
    for (name, text) in texts {
        let path = place.path(&format!("out/zstd/{name}.zst"));
        let output = tokio::process::Command::new("zstd").args(["-dc"]).arg(path).stdin(Stdio::null()).output().await?;
        ensure(output.stdout == *text, || format!("{name} is not what was compressed"))?;
    }
    Ok(())
}

/// A sum of squares by numpy over ranges of numbers, small results in the report, added up by `finally`.
async fn computes(place: &Place) -> Result {
    let square = "import os, numpy\n\
                  first, count = int(os.environ['HYPERFLOW_START']), int(os.environ['HYPERFLOW_COUNT'])\n\
                  numbers = numpy.arange(first, first + count, dtype=numpy.int64)\n\
                  open(os.environ['HYPERFLOW_RESULT'], 'w').write(str(int((numbers * numbers).sum())))\n";
    let exec = json!({"command": ["python3", "-c", square], "input": "None", "output": "None"});
    let source = json!({"numbers": {"start": -500, "count": 1_000_001, "numbersPerShard": 250_000}});
    let mut job = program("numpy", PYTHON, source, &exec);
    let add = "import json, sys\n\
               open('/data/out/sum', 'w').write(str(sum(int(json.loads(line)['result']) for line in sys.stdin)))\n";
    job["spec"]["finally"] = json!({"command": ["python3", "-c", add]});
    let job = place.apply(job).await?;
    let status = job.complete(LIMIT).await?;
    let wanted: i64 = (-500_i64..1_000_001 - 500).map(|number| number * number).sum();
    let found = fs::read_to_string(place.path("out/sum"))?;
    ensure(found == wanted.to_string(), || format!("the sum is {found}, not {wanted}"))?;
    let report = oracle::report(place, &status)?;
    ensure(report.len() == 5 && report.iter().all(|line| line["result"].is_string()), || format!("{report:?}"))
}

/// Nothing but one static program in the image: no shell, no user, no loader. Pieces of files reach it as ranges.
async fn needs_nothing(place: &Place, texts: &Tree) -> Result {
    let all: Vec<u8> = texts.values().flatten().copied().collect();
    place.write("in/all.txt", &all)?;
    let exec = json!({"command": ["/program", "count"], "input": "File", "output": "File"});
    let source = json!({"files": {"url": "file:///data/in/all.txt", "boundary": "Line", "bytesPerShard": "64Ki"}});
    let mut job = program("static", STATIC, source, &exec);
    job["spec"]["output"] = json!({"url": "file:///data/out/static/"});
    let status = place.apply(job).await?.complete(LIMIT).await?;
    ensure(shards(&status).total > 3, || format!("{:?}", status.shards))?;
    let (mut lines, mut bytes) = (0, 0);
    for text in oracle::tree(&place.path("out/static"))?.values() {
        let counts: Vec<usize> = std::str::from_utf8(text)?.split_whitespace().flat_map(str::parse).collect();
        lines += counts.first().ok_or("no lines")?;
        bytes += counts.get(1).ok_or("no bytes")?;
    }
    let wanted = (all.iter().filter(|byte| **byte == b'\n').count(), all.len());
    ensure((lines, bytes) == wanted, || format!("{lines} lines and {bytes} bytes, expected {wanted:?}"))
}

/// What a shard is, is in the environment; an Indexed Job's image finds its index where it always did.
async fn is_told_everything(place: &Place) -> Result {
    let exec = json!({
        "command": ["/program", "env", "$(GREETING)", "$$(GREETING)", "$(HYPERFLOW_ITEM)"],
        "env": [{"name": "GREETING", "value": "hello"}, {"name": "HOME", "value": "/tmp"}],
        "input": "None", "output": "Stdout"
    });
    let source = json!({"items": {"values": ["chr1:1-5", "with \"quotes\" and ünïcode"]}});
    let mut job = program("told", STATIC, source, &exec);
    job["spec"]["output"] = json!({"url": "file:///data/out/told/"});
    place.apply(job).await?.complete(LIMIT).await?;
    let said = fs::read_to_string(place.path("out/told/part-000001"))?;
    for line in [
        "HYPERFLOW_ITEM=with \"quotes\" and ünïcode",
        "HYPERFLOW_JOB=told",
        "HYPERFLOW_RUN=1",
        "HYPERFLOW_SHARD_INDEX=1",
        "HYPERFLOW_ATTEMPT=1",
        "JOB_COMPLETION_INDEX=1",
        "hello",
        "$(GREETING)",
    ] {
        ensure(said.lines().any(|found| found == line), || format!("'{line}' is not in what it was told:\n{said}"))?;
    }
    for ours in ["HYPERFLOW_TOKEN_FILE", "HYPERFLOW_OPERATOR", "HYPERFLOW_POD_UID"] {
        ensure(!said.contains(ours), || format!("{ours} is the worker's own:\n{said}"))?;
    }
    Ok(())
}

/// Several files in, a directory of several out, published as one.
async fn makes_directories(place: &Place) -> Result {
    for name in ["a/1", "a/2", "b/3"] {
        place.write(&format!("in/few/{name}"), name.as_bytes())?;
    }
    let copy = "mkdir -p \"$1/all/deep\" && cp -RL \"$0\"/. \"$1/all/deep\" && ls \"$1/all/deep\" > \"$1/list\"";
    let exec = json!({
        "command": ["sh", "-c", copy, "$(HYPERFLOW_INPUT)", "$(HYPERFLOW_OUTPUT)"],
        "input": "Directory", "output": "Directory"
    });
    let source = json!({"files": {"url": "file:///data/in/few/", "boundary": "File", "filesPerShard": 3}});
    let mut job = program("folders", BUSYBOX, source, &exec);
    job["spec"]["output"] = json!({"url": "file:///data/out/folders/", "path": "set-{index}"});
    place.apply(job).await?.complete(LIMIT).await?;
    let found = oracle::tree(&place.path("out/folders"))?;
    let file = |name: &str, bytes: &str| (format!("set-000000/{name}"), bytes.as_bytes().to_vec());
    let wanted: Tree =
        [file("all/deep/a/1", "a/1"), file("all/deep/a/2", "a/2"), file("all/deep/b/3", "b/3"), file("list", "a\nb\n")]
            .into();
    oracle::same(&found, &wanted)
}
