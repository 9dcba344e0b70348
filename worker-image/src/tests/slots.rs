//! Programs that live for many shards, as real processes.

use std::{
    thread,
    time::{Duration, Instant},
};

use hyperflow_core::worker::Stop;

use super::*;

/// Does what each item says, and writes its own process id as the result.
const PROGRAM: &str = r#"
import json, os, signal, sys, time
def say(**message):
    print(json.dumps(message), flush=True)
hello = json.loads(sys.stdin.readline())
assert hello["hyperflow"] == 1 and hello["type"] == "hello", hello
print("hello from slot", hello["slot"], file=sys.stderr, flush=True)
time.sleep(float(os.environ.get("SLOW_START", "0")))
say(type="ready")
for line in sys.stdin:
    shard = json.loads(line)
    index, item = shard["index"], shard["item"]
    print("doing", item, file=sys.stderr, flush=True)
    if shard["output"]:
        open(shard["output"], "w").write(str(os.getpid()))
    if item == "fail": say(type="failed", index=index, message="no such thing")
    elif item == "bad": say(type="failed", index=index, message="broken", **{"class": "BadInput"})
    elif item == "exit 3": sys.exit(3)
    elif item == "exit 0": sys.exit(0)
    elif item == "exit 65": sys.exit(65)
    elif item == "kill": os.kill(os.getpid(), signal.SIGKILL)
    elif item == "hang": time.sleep(600)
    elif item == "garbage": print("Epoch 1/10", flush=True); time.sleep(600)
    elif item == "long": print("x" * 70000, flush=True); time.sleep(600)
    elif item == "other": say(type="done", index=index + 1); time.sleep(600)
    elif item == "twice": say(type="done", index=index); say(type="done", index=index)
    elif item == "mute": os.close(1); time.sleep(600)
    elif item == "late exit": say(type="done", index=index); sys.exit(0)
    elif item == "loud": sys.stderr.write("noise\n" * 200000); say(type="done", index=index)
    elif item == "progress":
        for step in range(30):
            say(type="progress", index=index, done=step / 30)
            time.sleep(0.1)
        say(type="done", index=index)
    elif item == "checkpoint":
        before = open(shard["resumeFrom"]).read() if shard["resumeFrom"] else "nothing"
        signal.signal(signal.SIGTERM, lambda *_: (open(shard["checkpoint"], "w").write("half"), sys.exit(0)))
        open(shard["output"], "w").write("after " + before)
        if before == "nothing": time.sleep(600)
        say(type="done", index=index)
    elif item == "large": say(type="done", index=index, result="x" * 5000)
    elif item == "nothing": os.remove(shard["output"]); say(type="done", index=index)
    else: say(type="done", index=index, result="did " + item)
"#;

fn slots(items: &[&str]) -> Volume {
    program(&["python3", "-c", PROGRAM], items)
}

fn program(command: &[&str], items: &[&str]) -> Volume {
    let mut volume = Volume::new(b"", "4Ki");
    volume.spec["source"] = json!({"items": {"values": items}});
    volume.spec["checkpoint"] = json!({"periodSeconds": 1});
    volume.spec["task"] = json!({"exec": {
        "image": "registry.example/tool:1", "command": command, "input": "None", "output": "File", "lifetime": "Slot"
    }});
    volume
}

fn pid(volume: &Volume, index: ShardIndex) -> u32 {
    fs::read_to_string(volume.path(&format!("out/part-{index:06}"))).unwrap().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    // One that is not reaped yet is not alive.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A shard that does not succeed.
fn failed(work: &Work, index: ShardIndex, sequence: u64) -> Failure {
    refused(run(work, index, sequence, None))
}

#[test]
fn one_process_does_shard_after_shard_and_its_words_are_in_the_records() {
    let volume = slots(&["a", "b", "c"]);
    let work = volume.planned(1);
    for index in 0..3 {
        run(&work, index, 10 + u64::from(index), None).unwrap();
    }
    assert_eq!(pid(&volume, 0), pid(&volume, 1));
    assert_eq!(pid(&volume, 0), pid(&volume, 2));
    let records = volume.records();
    assert_eq!(records[2]["result"], "did c");
    assert!(is_alive(pid(&volume, 0)));
    let began = Instant::now();
    work.slots.end();
    assert!(!is_alive(pid(&volume, 0)) && began.elapsed() < Duration::from_secs(4), "it ends when stdin is closed");
}

#[test]
fn slots_have_a_process_each_and_no_more() {
    let volume = slots(&["progress", "progress", "a", "b"]);
    let work = volume.planned(1);
    thread::scope(|scope| {
        for index in 0..2 {
            let work = &work;
            scope.spawn(move || run(work, index, 10 + u64::from(index), None).unwrap());
        }
    });
    let first = [pid(&volume, 0), pid(&volume, 1)];
    assert_ne!(first[0], first[1]);
    run(&work, 2, 12, None).unwrap();
    run(&work, 3, 13, None).unwrap();
    assert!(first.contains(&pid(&volume, 2)) && first.contains(&pid(&volume, 3)));
    drop(work);
    assert!(!is_alive(first[0]) && !is_alive(first[1]), "nothing runs without its worker");
}

#[test]
fn a_shard_that_failed_leaves_the_process_as_it_is() {
    let volume = slots(&["a", "fail", "bad", "b", "large", "nothing", "c"]);
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    let failure = failed(&work, 1, 11);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Application, "ProgramFailed"));
    assert_eq!(failure.message, "no such thing");
    assert_eq!(failed(&work, 2, 12).class, FailureClass::BadInput);
    run(&work, 3, 13, None).unwrap();
    assert_eq!(failed(&work, 4, 14).reason, "ResultTooLarge");
    assert_eq!(failed(&work, 5, 15).reason, "NoOutput");
    run(&work, 6, 16, None).unwrap();
    assert!(pid(&volume, 0) == pid(&volume, 3) && pid(&volume, 3) == pid(&volume, 6));
}

#[test]
fn a_process_that_ends_with_its_shard_fails_it_as_any_program_and_is_replaced() {
    let volume = slots(&["a", "exit 3", "exit 0", "exit 65", "kill", "b"]);
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    let of = |index, sequence| {
        let Failure { class, reason, exit_code, message, .. } = failed(&work, index, sequence);
        assert!(message.contains("doing"), "the end of its stderr: {message}");
        (class, reason, exit_code)
    };
    assert_eq!(of(1, 11), (FailureClass::Application, "ExitCode".into(), Some(3)));
    assert_eq!(of(2, 12), (FailureClass::Application, "ExitCode".into(), Some(0)));
    assert_eq!(of(3, 13), (FailureClass::BadInput, "BadInput".into(), Some(65)));
    assert_eq!(of(4, 14), (FailureClass::Application, "Signal".into(), None));
    run(&work, 5, 15, None).unwrap();
    assert_ne!(pid(&volume, 0), pid(&volume, 5));
}

#[test]
fn what_is_not_of_the_protocol_ends_the_process_and_fails_the_shard() {
    let volume = slots(&["garbage", "long", "other", "mute", "a"]);
    let work = volume.planned(1);
    let messages =
        ["'Epoch 1/10' is no message", "is longer than", "is about shard 3", "has closed its stdin or its stdout"];
    for (index, message) in (0..).zip(messages) {
        let failure = failed(&work, index, 10 + u64::from(index));
        assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Application, "SlotProtocol"));
        assert!(failure.message.contains(message) && failure.message.len() < 1000, "{}", failure.message);
    }
    run(&work, 4, 20, None).unwrap();
}

#[test]
fn a_process_that_ends_or_speaks_while_it_has_no_shard_is_replaced_and_no_shard_fails() {
    let volume = slots(&["late exit", "a", "twice", "b", "c"]);
    let work = volume.planned(1);
    for index in 0..4 {
        run(&work, index, 10 + u64::from(index), None).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    let pids: Vec<u32> = (0..4).map(|index| pid(&volume, index)).collect();
    assert!(pids[0] != pids[1] && pids[1] == pids[2] && pids[2] != pids[3], "{pids:?}");
    // Killed from outside.
    let killed = std::process::Command::new("kill").args(["-9", &pids[3].to_string()]).status().unwrap();
    assert!(killed.success());
    thread::sleep(Duration::from_millis(100));
    run(&work, 4, 20, None).unwrap();
    assert_ne!(pid(&volume, 4), pids[3]);
}

#[test]
fn a_shard_that_takes_too_long_is_ended_and_a_slow_start_does_not_count() {
    let mut volume = slots(&["a", "hang", "b"]);
    volume.spec["failurePolicy"] = json!({"attemptDeadlineSeconds": 1});
    volume.spec["task"]["exec"]["command"] = json!(["env", "SLOW_START=2", "python3", "-c", PROGRAM]);
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    let began = Instant::now();
    let failure = failed(&work, 1, 11);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Timeout, "AttemptDeadline"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(!is_alive(pid(&volume, 0)));
    run(&work, 2, 12, None).unwrap();
}

#[test]
fn lines_of_progress_are_progress_and_reported() {
    // Three seconds of work, of which each second has some.
    let volume = slots(&["progress"]);
    let work = volume.planned(1);
    let mut started = start(Target::Shard(0), 10, None);
    shard::run(&work, &started.attempt, 0).unwrap();
    assert!(matches!(started.reports.try_recv(), Ok(Event::Progressed { .. })));
}

#[test]
fn a_process_that_says_and_writes_nothing_is_ended() {
    let mut volume = slots(&["hang"]);
    volume.spec["failurePolicy"] = json!({"progressTimeoutSeconds": 10});
    let failure = failed(&volume.planned(1), 0, 10);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Timeout, "NoProgress"));
}

#[test]
fn a_program_that_is_never_ready_fails_its_shard_after_three_starts() {
    let mut volume = program(&[], &["a", "b"]);
    let starts = volume.path("starts");
    let script = format!("echo x >>{}; echo no weights >&2; exit 7", starts.display());
    volume.spec["task"]["exec"]["command"] = json!(["sh", "-c", script]);
    let work = volume.planned(1);
    let failure = failed(&work, 0, 10);
    assert_eq!((failure.reason.as_str(), failure.exit_code, failure.ends_job), ("ExitCode", Some(7), false));
    assert!(failure.message.contains("no weights"), "{}", failure.message);
    let count = || fs::read_to_string(&starts).unwrap().lines().count();
    assert_eq!(count(), 3);
    failed(&work, 1, 11);
    assert_eq!(count(), 4, "a program that has not been ready once is not tried three times again");
}

#[test]
fn a_program_that_cannot_be_ready_in_its_time_is_ended() {
    let mut volume = program(&["sleep", "600"], &["a"]);
    volume.spec["failurePolicy"] = json!({"progressTimeoutSeconds": 10});
    let work = volume.planned(1);
    let mut starts = hyperflow_core::program::slot::Starts::default();
    // Two that failed before: one start is enough to see.
    assert!(starts.failed() && starts.failed());
    work.slots.started(starts);
    let failure = failed(&work, 0, 10);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Timeout, "NotReady"));
}

#[test]
fn a_program_that_is_not_there_ends_the_job() {
    let failure = failed(&program(&["/no/such/program"], &["a"]).planned(1), 0, 10);
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("ProgramNotFound", true));
}

#[test]
fn a_fenced_attempt_ends_its_process_and_the_next_shard_has_another() {
    let volume = slots(&["a", "hang", "b"]);
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    let started = start(Target::Shard(1), 11, None);
    let stop = started.stop.clone();
    let order = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        stop.order(Stop::Now);
    });
    assert!(matches!(shard::run(&work, &started.attempt, 1), Err(Fault::Stopped)));
    order.join().unwrap();
    assert!(!is_alive(pid(&volume, 0)));
    run(&work, 2, 12, None).unwrap();
    assert_ne!(pid(&volume, 0), pid(&volume, 2));
}

#[test]
fn a_worker_that_leaves_asks_for_a_checkpoint_and_the_next_goes_on_from_it() {
    let volume = slots(&["checkpoint"]);
    let work = volume.planned(1);
    let mut started = start(Target::Shard(0), 10, None);
    let stop = started.stop.clone();
    let order = thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        stop.order(Stop::AfterCheckpoint);
    });
    assert!(matches!(shard::run(&work, &started.attempt, 0), Err(Fault::Stopped)));
    order.join().unwrap();
    let checkpoint = std::iter::from_fn(|| started.reports.try_recv().ok()).find_map(|event| match event {
        Event::Checkpointed { checkpoint, .. } => Some(checkpoint),
        _ => None,
    });
    run(&work, 0, 11, Some(checkpoint.unwrap())).unwrap();
    assert_eq!(fs::read_to_string(volume.path("out/part-000000")).unwrap(), "after half");
}

#[test]
fn a_program_that_writes_much_to_stderr_is_not_held_up() {
    let volume = slots(&["loud"]);
    run(&volume.planned(1), 0, 10, None).unwrap();
}

/// A program that users copy, over a directory of files.
fn example(name: &str, interpreter: &str) -> Volume {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/programs").join(name);
    let mut volume = program(&["env", "LOAD_SECONDS=0.2", interpreter, path.to_str().unwrap()], &[]);
    fs::write(volume.path("in/b.txt"), "two words\none\n").unwrap();
    fs::remove_file(volume.path("in/data")).unwrap();
    let url = format!("file://{}/", volume.path("in").display());
    volume.spec["source"] = json!({"files": {"url": url, "boundary": "Line", "bytesPerShard": "4Ki"}});
    volume.spec["task"]["exec"]["input"] = json!("File");
    volume
}

#[test]
fn the_example_in_python_does_what_it_says() {
    let volume = example("slot.py", "python3");
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    let result = fs::read_to_string(volume.path("out/part-000000")).unwrap();
    assert_eq!(result, "{\"text\": \"two words\", \"words\": 2}\n{\"text\": \"one\", \"words\": 1}\n");
    assert_eq!(volume.records()[0]["result"], "2 lines");
    fs::write(volume.path("in/b.txt"), b"\xff\xfe\n").unwrap();
    let mut again = example("slot.py", "python3");
    again.uid = "5b1e0c44-0000-4000-8000-000000000002";
    fs::write(again.path("in/b.txt"), b"\xff\xfe\n").unwrap();
    assert_eq!(failed(&again.planned(1), 0, 10).class, FailureClass::BadInput);
    work.slots.end();
}

#[test]
fn the_example_in_sh_does_what_it_says() {
    let volume = example("slot.sh", "sh");
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    assert_eq!(fs::read_to_string(volume.path("out/part-000000")).unwrap(), "one\ntwo words\n");
    let began = Instant::now();
    work.slots.end();
    assert!(began.elapsed() < Duration::from_secs(4));
}
