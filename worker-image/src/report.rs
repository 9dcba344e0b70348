//! What became of each shard of the plan, from what workers recorded (P9): the report, and two lists beside it.
//!
//! Records lie in files in the order in which shards were done. They are sorted on disk and meet the plan shard by shard,
//! so that a million of them take a few megabytes. `docs/formats.md` says what users may depend on.

mod line;
mod recorded;
mod stored;
mod writer;

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::PathBuf,
};

use hyperflow_api::{ids::ShardIndex, message::FailureClass};
use hyperflow_core::{
    job::{Job, Sum, Task},
    plan::{Piece, Shard},
};

use self::{line::Line, writer::Writer};
pub use self::{
    recorded::{Entry, Recorded},
    stored::make,
};
use crate::{
    fault::{self, Fault},
    hash::Hash,
    records::Record,
};

/// Where the files of a report are written: private names (P3), which the caller links to the final ones.
#[derive(Clone, Debug)]
pub struct Places {
    /// The report.
    pub report: PathBuf,
    /// The input of shards that are not published.
    pub failed: PathBuf,
    /// The checksums of all files.
    pub sums: PathBuf,
}

/// Name of the list of all checksums, for a task that makes one.
pub fn sums_name(task: &Task) -> Option<&'static str> {
    match task {
        Task::Checksum(Sum::Crc32c) => Some("CRC32C"),
        Task::Checksum(Sum::Sha256) => Some("SHA256SUMS"),
        Task::Exec(_) | Task::Copy { .. } | Task::Noop => None,
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Content digest of the report.
    pub digest: String,
    /// Shards with a record.
    pub published: u64,
    /// Shards without.
    pub missing: u64,
    /// Whether there is a list of failed input: numbers have none.
    pub lists_failed: bool,
    /// Lines in record files that are neither records nor failures.
    pub torn: u64,
    /// Failed input whose name does not fit into a line, and that is therefore in no list.
    pub unlisted: u64,
}

/// Writes the report while the caller goes through the plan.
pub struct ReportWriter<'a> {
    job: &'a Job,
    program: String,
    committed: &'a dyn Fn(ShardIndex, u32) -> PathBuf,
    recorded: Recorded,
    places: Places,
    report: Writer,
    failed: Option<Writer>,
    sums: Option<Writer>,
    /// The last file in the list of failed input: a file has many shards, one after the other.
    last_failed: String,
    published: u64,
    missing: u64,
    unlisted: u64,
}

impl<'a> ReportWriter<'a> {
    /// Begins. `committed` says where the commit of a shard in a run is; it is asked for checksums only.
    pub fn new(
        job: &'a Job,
        recorded: Recorded,
        places: Places,
        committed: &'a dyn Fn(ShardIndex, u32) -> PathBuf,
    ) -> Result<Self, Fault> {
        Ok(Self {
            job,
            program: job.task.program(),
            committed,
            recorded,
            report: Writer::create(&places.report)?,
            failed: None,
            sums: sums_name(&job.task).map(|_| Writer::create(&places.sums)).transpose()?,
            places,
            last_failed: String::new(),
            published: 0,
            missing: 0,
            unlisted: 0,
        })
    }

    /// Adds a shard. Their indexes rise.
    pub fn shard(&mut self, index: ShardIndex, shard: &Shard) -> Result<(), Fault> {
        let entry = self.recorded.of(index)?;
        let id = shard.id();
        let line = Line::new(self.job, &self.program, (index, &id, shard), entry.as_ref());
        let mut text = serde_json::to_vec(&line).map_err(|error| self.report.fault("write")(error.into()))?;
        text.push(b'\n');
        self.report.write(&text)?;
        match &entry {
            Some(Entry::Published(record)) => {
                self.published += 1;
                self.add_sums(record)
            }
            Some(Entry::Failed(_)) | None => {
                self.missing += 1;
                self.add_failed(shard)
            }
        }
    }

    /// Everything is added: makes the files durable, but for their names.
    pub fn finish(self) -> Result<Finished, Fault> {
        let lists_failed = self.failed.is_some();
        for list in [self.failed, self.sums].into_iter().flatten() {
            list.finish()?;
        }
        Ok(Finished {
            digest: self.report.finish()?,
            published: self.published,
            missing: self.missing,
            lists_failed,
            torn: self.recorded.torn,
            unlisted: self.unlisted,
        })
    }

    /// Adds the result of a shard to the list of checksums.
    fn add_sums(&mut self, record: &Record) -> Result<(), Fault> {
        let Some(sums) = &mut self.sums else { return Ok(()) };
        let path = (self.committed)(record.index, record.run);
        // One more than there should be tells a file that has grown.
        let mut file = File::open(&path).map_err(fault::output("open", &path))?.take(record.bytes.saturating_add(1));
        let mut hash = Hash::new(Sum::Crc32c);
        let (mut buffer, mut bytes) = ([0; 4 << 10], 0);
        loop {
            let read = match file.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(fault::output("read", &path))?,
            };
            hash.update(&buffer[..read]);
            sums.write(&buffer[..read])?;
            bytes += read as u64;
        }
        if bytes == record.bytes && hash.finish() == record.crc32c {
            return Ok(());
        }
        let message = format!(
            "'{}' is not what was published as the result of shard {}: it was changed afterwards. Create a new \
             ShardJob with another `spec.output.url`",
            path.display(),
            record.index
        );
        Err(fault::end_job(FailureClass::Store, "OutputDamaged", message))
    }

    /// Adds the input of a shard to the list of what failed, which is a manifest as it stands. Numbers are in none.
    fn add_failed(&mut self, shard: &Shard) -> Result<(), Fault> {
        if shard.numbers.is_some() {
            return Ok(());
        }
        let failed = match &mut self.failed {
            Some(failed) => failed,
            failed => failed.insert(Writer::create(&self.places.failed)?),
        };
        for Piece { file, .. } in &shard.pieces {
            if self.last_failed != file.url {
                self.unlisted += u64::from(!failed.entry(&file.url)?);
                self.last_failed.clone_from(&file.url);
            }
        }
        for item in &shard.items {
            self.unlisted += u64::from(!failed.entry(item)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use hyperflow_core::plan::{InputFile, Numbers};
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::{recorded::LONGEST, *};
    use crate::records::Failed;

    fn job(task: &Value, path: Option<&str>) -> Job {
        let mut spec = json!({
            "source": {"files": {"url": "file:///data/in/", "boundary": "File"}},
            "task": task,
            "records": {"url": "file:///data/records/"},
            "workers": {
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]
            }
        });
        if let Some(path) = path {
            spec["output"] = json!({"url": "file:///data/out/", "path": path});
        }
        Job::check(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn record(index: ShardIndex, epoch: &str, found: bool) -> Record {
        Record {
            index,
            run: 1,
            epoch: epoch.into(),
            attempt: 2,
            worker: "w".into(),
            node: "n".into(),
            bytes: 5,
            crc32c: "0000000a".into(),
            resumed_from: 3,
            bytes_read_again: 1,
            bytes_read: 6,
            millis: 7,
            found,
            result: None,
        }
    }

    fn line(record: &Record) -> Vec<u8> {
        let mut line = serde_json::to_vec(record).unwrap();
        line.push(b'\n');
        line
    }

    fn of_file(path: &str) -> Shard {
        let file =
            InputFile { url: format!("file:///data/in/{path}"), path: path.into(), size: 9, version: "1".into() };
        Shard { pieces: vec![Piece { file, offset: 4, length: 5 }], ..Shard::default() }
    }

    /// A folder with the records of one worker.
    fn recorded(lines: &[u8]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("records");
        fs::create_dir(&records).unwrap();
        fs::write(records.join("w.jsonl"), lines).unwrap();
        (folder, records)
    }

    fn places(folder: &Path) -> Places {
        let place = |name| folder.join(name);
        Places { report: place("report"), failed: place("failed"), sums: place("sums") }
    }

    fn write(job: &Job, folder: &Path, records: &Path, shards: &[Shard]) -> Result<Finished, Fault> {
        let committed = |index, _| folder.join(format!("pub-{index}"));
        let recorded = Recorded::read(records, &[], folder)?;
        let mut writer = ReportWriter::new(job, recorded, places(folder), &committed)?;
        for (index, shard) in (0..).zip(shards) {
            writer.shard(index, shard)?;
        }
        writer.finish()
    }

    #[test]
    fn a_line_says_what_was_read_what_was_written_and_by_whom() {
        let job = job(&json!({"copy": {"copies": 2}}), Some("{dir}{stem}.{copy}"));
        let (folder, records) = recorded(&line(&record(1, "1.00000000000000aa.3", false)));
        let finished = write(&job, folder.path(), &records, &[of_file("a"), of_file("b \"c\"/d.txt")]).unwrap();
        let report = fs::read(places(folder.path()).report).unwrap();
        let digest = format!("blake3:{}", blake3::hash(&report).to_hex());
        assert_eq!(finished, Finished { digest, published: 1, missing: 1, lists_failed: true, torn: 0, unlisted: 0 });
        let ids = [of_file("a").id(), of_file("b \"c\"/d.txt").id()];
        let expected = format!(
            concat!(
                r#"{{"index":0,"id":"{}","inputs":[{{"url":"file:///data/in/a","offset":4,"length":5}}],"#,
                r#""outputs":[],"published":false}}"#,
                "\n",
                r#"{{"index":1,"id":"{}","inputs":[{{"url":"file:///data/in/b \"c\"/d.txt","offset":4,"length":5}}],"#,
                r#""outputs":[{{"url":"file:///data/out/b \"c\"/d.1","bytes":5,"crc32c":"0000000a"}},"#,
                r#"{{"url":"file:///data/out/b \"c\"/d.2","bytes":5,"crc32c":"0000000a"}}],"published":true,"#,
                r#""attempts":2,"node":"n","worker":"w","millis":7,"resumedFrom":3,"bytesReadAgain":1,"#,
                r#""bytesRead":6,"run":1,"program":"copy/1x2"}}"#,
                "\n",
            ),
            ids[0], ids[1]
        );
        assert_eq!(String::from_utf8(report).unwrap(), expected);
    }

    /// Some numbers without a pattern.
    fn scattered(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    #[test]
    fn of_many_records_of_many_workers_the_right_one_counts_for_each_shard() {
        const SHARDS: u32 = 4000;
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("records"), folder.path().join("before"), folder.path().join("none")];
        let mut seed = 1;
        let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        let mut counts: BTreeMap<ShardIndex, (bool, u64, u64, Record)> = BTreeMap::new();
        for number in 0..12_000 {
            let index = u32::try_from(scattered(&mut seed)).unwrap() % SHARDS;
            let (term, sequence) = (scattered(&mut seed) % 12, number);
            let found = !scattered(&mut seed).is_multiple_of(4);
            let worker = scattered(&mut seed) % 9;
            let mut record = record(index, &format!("{term}.{:016x}.{sequence}", 1), found);
            record.worker = format!("w{worker}");
            record.millis = number;
            let key = (found, term, sequence, record.clone());
            let best = counts.entry(index).or_insert_with(|| key.clone());
            if (key.0, key.1, key.2) < (best.0, best.1, best.2) {
                *best = key;
            }
            let file = folders[usize::from(worker == 0)].join(format!("w{worker}.jsonl"));
            let lines = files.entry(file).or_default();
            lines.extend(line(&record));
            if scattered(&mut seed).is_multiple_of(8) {
                lines.extend(line(&record));
            }
        }
        fs::create_dir(&folders[0]).unwrap();
        fs::create_dir(&folders[1]).unwrap();
        for (file, lines) in &mut files {
            // What would win, were it whole.
            let torn = line(&record(0, "0.0000000000000000.0", false));
            lines.extend(&torn[..torn.len() - 1]);
            fs::write(file, lines).unwrap();
        }
        fs::write(folders[0].join("w1.jsonl.swp"), line(&record(0, "0.0000000000000000.0", false))).unwrap();

        let recorded = Recorded::read_within(20_000, &folders[0], &folders[1..], folder.path()).unwrap();
        let (job, committed) = (job(&json!({"copy": {}}), Some("part-{index}")), |_, _| PathBuf::new());
        let mut writer = ReportWriter::new(&job, recorded, places(folder.path()), &committed).unwrap();
        for index in 0..SHARDS {
            writer.shard(index, &of_file(&format!("f{index}"))).unwrap();
        }
        let finished = writer.finish().unwrap();
        let published = counts.len() as u64;
        assert!(published < u64::from(SHARDS), "some have no record");
        assert_eq!((finished.published, finished.missing), (published, u64::from(SHARDS) - published));
        assert_eq!((finished.torn, finished.unlisted), (files.len() as u64, 0));

        let report = fs::read_to_string(places(folder.path()).report).unwrap();
        assert_eq!(report.lines().count(), SHARDS as usize);
        for (index, line) in (0..).zip(report.lines()) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["index"], index);
            let record = counts.get(&index).map(|best| (best.3.worker.as_str().into(), best.3.millis.into()));
            assert_eq!((line["worker"].clone(), line["millis"].clone()), record.unwrap_or_default(), "{index}");
        }
        let failed = fs::read_to_string(places(folder.path()).failed).unwrap();
        let missing = (0..SHARDS).filter(|index| !counts.contains_key(index));
        assert!(failed.lines().eq(missing.map(|index| format!("file:///data/in/f{index}"))));
    }

    #[test]
    fn lines_that_are_no_records_are_counted_and_the_others_are_read() {
        let good = |index| line(&record(index, "1.00000000000000aa.3", false));
        let long = vec![b' '; 3 * usize::try_from(LONGEST).unwrap()];
        let strange = String::from_utf8(good(3)).unwrap().replace("1.00000000000000aa.3", "yesterday");
        let half = good(4);
        let lines =
            [&good(0)[..], b"\n", b"{}\n\xff\n", &long, &good(3), strange.as_bytes(), &good(1), &half[..40]].concat();
        let (folder, records) = recorded(&lines);
        let job = job(&json!({"copy": {}}), Some("part-{index}"));
        let shards: Vec<Shard> = (0..5).map(|index| of_file(&index.to_string())).collect();
        let finished = write(&job, folder.path(), &records, &shards).unwrap();
        assert_eq!((finished.published, finished.missing, finished.torn), (2, 3, 6));
    }

    fn failed(index: ShardIndex, epoch: &str, message: &str) -> Failed {
        Failed {
            index,
            epoch: epoch.into(),
            attempt: 3,
            worker: "w".into(),
            node: "m".into(),
            millis: 7,
            class: "Application".into(),
            reason: "ExitCode".into(),
            message: message.into(),
            exit_code: Some(3),
        }
    }

    #[test]
    fn why_a_shard_is_not_published_its_last_failure_says() {
        const EPOCHS: [&str; 3] = ["1.00000000000000aa.9", "1.00000000000000aa.10", "2.00000000000000aa.1"];
        let (folder, records) = recorded(b"");
        let mut lines = Vec::new();
        // In no order; "now" is of the last epoch.
        for (index, epoch, message) in
            [(0, 1, "then"), (0, 2, "now"), (0, 0, "first"), (1, 2, "before it was published"), (2, 0, "once \"so\"")]
        {
            lines.extend(serde_json::to_vec(&failed(index, EPOCHS[epoch], message)).unwrap());
            lines.push(b'\n');
        }
        let published = Record { result: Some("{\"loss\":0.25}\u{1}".into()), ..record(1, EPOCHS[1], false) };
        lines.extend(line(&published));
        fs::write(records.join("w.jsonl"), lines).unwrap();
        // Of a job whose results were taken over: its failures are not this job's.
        let before = folder.path().join("before");
        fs::create_dir(&before).unwrap();
        let others = [serde_json::to_vec(&failed(3, EPOCHS[2], "another job's")).unwrap(), b"\n".into()].concat();
        fs::write(before.join("w.jsonl"), others).unwrap();

        let job = job(&json!({"copy": {}}), Some("part-{index}"));
        let recorded = Recorded::read(&records, &[before], folder.path()).unwrap();
        let committed = |_, _| PathBuf::new();
        let mut writer = ReportWriter::new(&job, recorded, places(folder.path()), &committed).unwrap();
        for index in 0..4 {
            writer.shard(index, &of_file(&index.to_string())).unwrap();
        }
        let finished = writer.finish().unwrap();
        assert_eq!((finished.published, finished.missing, finished.torn), (1, 3, 0));
        let report = fs::read_to_string(places(folder.path()).report).unwrap();
        let lines: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |line: &Value| (line["published"].clone(), line["message"].clone(), line["result"].clone());
        assert_eq!(of(&lines[0]), (false.into(), "now".into(), Value::Null));
        assert_eq!(of(&lines[1]), (true.into(), Value::Null, "{\"loss\":0.25}\u{1}".into()));
        assert_eq!(of(&lines[2]), (false.into(), "once \"so\"".into(), Value::Null));
        assert_eq!(of(&lines[3]), (false.into(), Value::Null, Value::Null));
        let last = concat!(
            r#""outputs":[],"published":false,"attempts":3,"node":"m","class":"Application","reason":"ExitCode","#,
            r#""message":"now","exitCode":3}"#
        );
        assert!(report.lines().next().unwrap().ends_with(last), "{report}");
    }

    #[test]
    fn a_reader_of_records_takes_no_failure_for_one() {
        let failed = serde_json::to_vec(&failed(0, "1.00000000000000aa.9", "so")).unwrap();
        assert!(serde_json::from_slice::<Record>(&failed).is_err());
        let record = serde_json::to_vec(&record(0, "1.00000000000000aa.9", false)).unwrap();
        assert!(serde_json::from_slice::<Failed>(&record).is_err());
    }

    #[test]
    fn numbers_stand_in_the_report_and_in_no_list() {
        let mut job = job(&json!({"copy": {}}), Some("part-{index}"));
        job.task = Task::Noop;
        let (folder, records) = recorded(b"");
        let numbers = Shard { numbers: Some(Numbers { start: -5, count: 7 }), ..Shard::default() };
        let finished = write(&job, folder.path(), &records, &[numbers]).unwrap();
        assert_eq!((finished.missing, finished.lists_failed, finished.unlisted), (1, false, 0));
        let Places { report, failed, .. } = places(folder.path());
        assert!(!failed.exists());
        let report = fs::read_to_string(report).unwrap();
        assert!(report.contains(r#""inputs":[],"numbers":{"start":-5,"count":7},"outputs":[],"published":false"#));
    }

    #[test]
    fn failed_input_is_a_manifest_with_each_file_once() {
        let job = job(&json!({"copy": {}}), Some("part-{index}"));
        let (folder, records) = recorded(&line(&record(2, "1.00000000000000aa.3", false)));
        let mut two = of_file("b");
        two.pieces.extend(of_file("c d").pieces);
        let shards = [of_file("a"), of_file("a"), of_file("fine"), two, of_file("x\ny"), of_file("x\r"), of_file("z")];
        let finished = write(&job, folder.path(), &records, &shards).unwrap();
        assert_eq!((finished.missing, finished.unlisted), (6, 2));
        let failed = fs::read_to_string(places(folder.path()).failed).unwrap();
        assert_eq!(failed, "file:///data/in/a\nfile:///data/in/b\nfile:///data/in/c d\nfile:///data/in/z\n");
    }

    #[test]
    fn failed_items_are_a_manifest_too() {
        let job = job(&json!({"copy": {}}), Some("part-{index}"));
        let (folder, records) = recorded(b"");
        let items = vec!["chr1:1-5".to_owned(), "chr1:1-5".to_owned(), "two\nlines".to_owned()];
        let shard = Shard { items, ..Shard::default() };
        assert_eq!(write(&job, folder.path(), &records, &[shard]).unwrap().unlisted, 1);
        assert_eq!(fs::read_to_string(places(folder.path()).failed).unwrap(), "chr1:1-5\nchr1:1-5\n");
        let report = fs::read_to_string(places(folder.path()).report).unwrap();
        assert!(report.contains(r#""inputs":[],"items":["chr1:1-5","chr1:1-5","two\nlines"],"#), "{report}");
    }

    #[test]
    fn when_all_is_published_there_is_no_list_of_failures() {
        let (folder, records) = recorded(&line(&record(0, "1.00000000000000aa.3", true)));
        let job = job(&json!({"copy": {}}), Some("part-{index}"));
        assert_eq!(write(&job, folder.path(), &records, &[of_file("a")]).unwrap().missing, 0);
        let Places { report, failed, sums } = places(folder.path());
        assert!(report.exists() && !failed.exists() && !sums.exists());
    }

    /// A job that sums up, whose shards 0 and 2 are published with these results.
    fn summed(results: [&str; 2]) -> (Job, TempDir, PathBuf) {
        let mut lines = Vec::new();
        for (index, result) in [0, 2].into_iter().zip(results) {
            let mut record = record(index, "1.00000000000000aa.3", false);
            let mut hash = Hash::new(Sum::Crc32c);
            hash.update(result.as_bytes());
            (record.bytes, record.crc32c) = (result.len() as u64, hash.finish());
            lines.extend(line(&record));
        }
        let (folder, records) = recorded(&lines);
        for (index, result) in [0, 2].into_iter().zip(results) {
            fs::write(folder.path().join(format!("pub-{index}")), result).unwrap();
        }
        (job(&json!({"checksum": {"algorithm": "SHA256"}}), None), folder, records)
    }

    #[test]
    fn checksums_of_all_published_shards_are_in_one_list() {
        let large = "ab  x\n".repeat(5000);
        let (job, folder, records) = summed(["cd  y\nef  z\n", &large]);
        let shards = [of_file("y"), of_file("w"), of_file("x")];
        let finished = write(&job, folder.path(), &records, &shards).unwrap();
        assert_eq!((finished.published, finished.missing), (2, 1));
        let sums = fs::read_to_string(places(folder.path()).sums).unwrap();
        assert!(sums == format!("cd  y\nef  z\n{large}"), "{}", sums.len());
        assert_eq!(sums_name(&job.task), Some("SHA256SUMS"));
        let report = fs::read_to_string(places(folder.path()).report).unwrap();
        assert!(report.contains(r#""outputs":[],"published":true"#), "without `output` nothing else is written");
    }

    #[test]
    fn a_result_that_is_not_what_was_published_is_not_summed_up() {
        for changed in ["cd  y\nef  Z\n", "cd  y\n", "cd  y\nef  z\ngh  q\n"] {
            let (job, folder, records) = summed(["cd  y\nef  z\n", ""]);
            fs::write(folder.path().join("pub-0"), changed).unwrap();
            let refused = write(&job, folder.path(), &records, &[of_file("y")]).unwrap_err();
            assert!(refused.to_string().contains("pub-0' is not what was published as the result of shard 0"));
        }
        let (job, folder, records) = summed(["", ""]);
        fs::remove_file(folder.path().join("pub-0")).unwrap();
        assert!(write(&job, folder.path(), &records, &[of_file("y")]).unwrap_err().vanished());
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let (folder, records) = recorded(b"");
        fs::write(places(folder.path()).report, "another's").unwrap();
        let job = job(&json!({"copy": {}}), Some("part-{index}"));
        let refused = write(&job, folder.path(), &records, &[]).unwrap_err();
        assert!(refused.to_string().starts_with("cannot create '"), "{refused}");
    }
}
