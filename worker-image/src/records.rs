//! Who published what: a line for each shard, durable before the shard is reported (P9); and a line for each attempt that
//! failed for a reason of its own, so that the report can say why a shard has no result.
//!
//! One thread writes. Lines that arrive while it syncs are written and synced together, so that many attempts pay for
//! one sync.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use hyperflow_api::{
    ids::ShardIndex,
    message::{Failure, FailureClass},
};
use serde::{Deserialize, Serialize};

use crate::{
    attempt::Attempt,
    fault::{self, Fault},
    store,
    work::{Work, locked},
};

/// Most lines in one write.
const BATCH: usize = 1024;
/// Most bytes of the message of a failure.
const MESSAGE: usize = 1024;

/// What is kept of a published shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Which shard.
    pub index: ShardIndex,
    /// In which run of the job.
    #[serde(default = "first_run")]
    pub run: u32,
    /// Under which lease.
    pub epoch: String,
    /// 1 for the first.
    pub attempt: u32,
    /// Who.
    pub worker: String,
    /// Where.
    pub node: String,
    /// Size of the output.
    pub bytes: u64,
    /// CRC-32C of the output, eight hexadecimal digits.
    pub crc32c: String,
    /// Bytes of the shard's input that earlier attempts had read.
    pub resumed_from: u64,
    /// Bytes that earlier attempts had written and that were read again, because no checkpoint counted them.
    pub bytes_read_again: u64,
    /// Bytes of input that this attempt read.
    pub bytes_read: u64,
    /// How long this attempt took.
    pub millis: u64,
    /// Another attempt had published; `bytes` and `crc32c` are of its output (P5).
    pub found: bool,
    /// What the program had to say beside its output, at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

/// What is kept of an attempt that failed. It lacks what a [`Record`] must have, so that neither is read as the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Which shard.
    pub index: ShardIndex,
    /// Under which lease.
    pub epoch: String,
    /// 1 for the first.
    pub attempt: u32,
    /// Who.
    pub worker: String,
    /// Where.
    pub node: String,
    /// How long the attempt took.
    pub millis: u64,
    /// What kind of failure, as in status.
    pub class: String,
    /// A word for programs.
    pub reason: String,
    /// What happened to what, shortened.
    pub message: String,
    /// How the program ended, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failed {
    /// Of an attempt of this work.
    pub fn new(work: &Work, attempt: &Attempt, index: ShardIndex, failure: &Failure) -> Self {
        let Failure { class, reason, message, exit_code, .. } = failure;
        let grant = attempt.grant();
        Self {
            index,
            epoch: grant.epoch.to_string(),
            attempt: grant.attempt,
            worker: work.worker.to_string(),
            node: work.node.clone(),
            millis: millis(attempt.age()),
            class: class.name().into(),
            reason: reason.clone(),
            message: message[..message.floor_char_boundary(MESSAGE)].into(),
            exit_code: *exit_code,
        }
    }
}

/// As records have it.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn first_run() -> u32 {
    1
}

/// The record file of this process. It is made when the first line is written.
#[derive(Debug, Default)]
pub struct Records {
    writer: Mutex<Option<mpsc::Sender<Line>>>,
}

struct Line {
    text: Vec<u8>,
    done: mpsc::Sender<io::Result<()>>,
}

impl Records {
    /// Appends a [`Record`] or a [`Failed`] to the file at `path`, always the same one; returns when it is durable.
    pub fn append(&self, path: &Path, record: &impl Serialize) -> Result<(), Fault> {
        let mut text = serde_json::to_vec(record).map_err(|error| fault::output("write", path)(error.into()))?;
        text.push(b'\n');
        let (done, answer) = mpsc::channel();
        let sent = self.sender(path)?.send(Line { text, done });
        let answered = sent.ok().and_then(|()| answer.recv().ok());
        let written = answered.unwrap_or_else(|| {
            // The writer panicked; the next record opens nothing new, so this worker can publish no more.
            Err(io::Error::other("the thread that writes records is gone"))
        });
        written.map_err(fault::output("write", path))
    }

    fn sender(&self, path: &Path) -> Result<mpsc::Sender<Line>, Fault> {
        let mut writer = locked(&self.writer);
        if let Some(sender) = &*writer {
            return Ok(sender.clone());
        }
        let (file, durable) = open(path)?;
        let (sender, lines) = mpsc::channel();
        let log = Log { file, durable, clean: true };
        let thread = thread::Builder::new().name("records".into()).spawn(move || write_all(log, &lines));
        thread.map_err(|error| {
            let message = format!("cannot start the thread that writes records: {error}");
            fault::try_again(FailureClass::WorkerLost, "NoThread", message)
        })?;
        *writer = Some(sender.clone());
        Ok(sender)
    }
}

fn open(path: &Path) -> Result<(File, u64), Fault> {
    // The name holds this process's nonce (P3): what is there was made by an earlier try of this function.
    let made = match OpenOptions::new().append(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => OpenOptions::new().append(true).open(path),
        made => made,
    };
    let file = made.map_err(fault::output("create", path))?;
    store::sync_folder(store::parent(path))?;
    let length = file.metadata().map_err(fault::output("look at", path))?.len();
    Ok((file, length))
}

/// The file and how much of it is known to be good.
struct Log {
    file: File,
    durable: u64,
    clean: bool,
}

impl Log {
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if !self.clean {
            // A half-written line of a failed try would spoil the next one.
            self.file.set_len(self.durable)?;
        }
        self.clean = false;
        self.file.write_all(text)?;
        self.file.sync_data()?;
        self.durable += text.len() as u64;
        self.clean = true;
        Ok(())
    }
}

fn write_all(mut log: Log, lines: &mpsc::Receiver<Line>) {
    let mut text = Vec::new();
    let mut waiting = Vec::new();
    while let Ok(first) = lines.recv() {
        for line in std::iter::once(first).chain(lines.try_iter().take(BATCH - 1)) {
            text.extend_from_slice(&line.text);
            waiting.push(line.done);
        }
        let written = log.append(&text);
        for done in waiting.drain(..) {
            let answer = written.as_ref().copied().map_err(copied);
            // An attempt that no longer waits has panicked, which its own thread reports.
            let _ = done.send(answer);
        }
        text.clear();
    }
}

fn copied(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn record(index: ShardIndex) -> Record {
        Record {
            index,
            run: 1,
            epoch: "1.00000000000000aa.3".into(),
            attempt: 1,
            worker: "w".into(),
            node: "n".into(),
            bytes: 5,
            crc32c: "0000000a".into(),
            resumed_from: 0,
            bytes_read_again: 0,
            bytes_read: 5,
            millis: 1,
            found: false,
            result: None,
        }
    }

    #[test]
    fn records_of_many_attempts_are_all_there_each_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.jsonl");
        let records = Arc::new(Records::default());
        thread::scope(|scope| {
            for lane in 0..8 {
                let (records, path) = (records.clone(), &path);
                scope.spawn(move || (0..20).for_each(|n| records.append(path, &record(lane * 20 + n)).unwrap()));
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let mut seen: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..160).collect::<Vec<_>>());
        assert!(text.contains("\"crc32c\":\"0000000a\",\"resumedFrom\":0,\"bytesReadAgain\":0"), "{text}");
    }

    #[test]
    fn a_half_written_line_is_cut_off_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.jsonl");
        let (file, durable) = open(&path).unwrap();
        let mut log = Log { file, durable, clean: true };
        log.append(b"one\n").unwrap();
        log.file.write_all(b"tw").unwrap();
        log.clean = false;
        log.append(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
