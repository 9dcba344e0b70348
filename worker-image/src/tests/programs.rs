//! Programs of users, good and bad, as real processes.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use hyperflow_core::worker::Stop;

use super::*;

/// A shell script for each shard of a volume.
fn script(text: &str, input: &str, output: &str) -> Volume {
    program(&["sh", "-c", text], input, output)
}

fn program(command: &[&str], input: &str, output: &str) -> Volume {
    let mut volume = Volume::new(b"one\ntwo\nthree\n", "4Ki");
    let url = format!("file://{}/", volume.path("in").display());
    volume.spec["source"] = json!({"files": {"url": url, "boundary": "File"}});
    volume.spec["checkpoint"] = json!({"periodSeconds": 1});
    volume.spec["task"] =
        json!({"exec": {"image": "registry.example/tool:1", "command": command, "input": input, "output": output}});
    if output == "None" {
        volume.spec.as_object_mut().unwrap().remove("output");
    }
    volume
}

impl Volume {
    fn exec(&mut self) -> &mut Value {
        &mut self.spec["task"]["exec"]
    }

    fn items(mut self, items: &[&str]) -> Self {
        self.spec["source"] = json!({"items": {"values": items}});
        self
    }

    fn result(&self) -> String {
        fs::read_to_string(self.path("out/part-000000")).unwrap()
    }
}

fn fails(volume: &Volume) -> Failure {
    refused(run(&volume.planned(1), 0, 10, None))
}

/// Nobody runs `sleep` with this unlikely time.
fn is_gone(time: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().all(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command != format!("sleep\0{time}\0").as_bytes()
    })
}

#[test]
fn bytes_go_through_a_program() {
    let volume = script("tr a-z A-Z; echo said >&2", "Stdin", "Stdout");
    let work = volume.planned(1);
    let published = run(&work, 0, 10, None).unwrap();
    assert_eq!((volume.result().as_str(), published.bytes), ("ONE\nTWO\nTHREE\n", 14));
    let record = &volume.records()[0];
    assert_eq!((&record["bytesRead"], record.get("result")), (&json!(14), None));
    assert!(run(&volume.planned(2), 0, 11, None).unwrap().found);
}

#[test]
fn a_program_sees_its_shard_and_nothing_of_the_worker() {
    let mut volume = script("env; cat $HYPERFLOW_SHARD; ls $TMPDIR; echo \"$1\" \"$2\"", "Stdin", "Stdout");
    let command = volume.exec()["command"].as_array_mut().unwrap();
    command.extend([json!("$0"), json!("<$(HYPERFLOW_SHARD_INDEX)$$(HYPERFLOW_RUN)>"), json!("$(NOT_SET)")]);
    let work = volume.planned(1);
    run(&work, 0, 10, None).unwrap();
    drop(work);
    let text = volume.result();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is not set: {text}")).to_owned()
    };
    assert_eq!(value("HYPERFLOW_JOB"), "copy");
    assert_eq!((value("HYPERFLOW_SHARD_INDEX"), value("JOB_COMPLETION_INDEX")), ("0".into(), "0".into()));
    assert_eq!((value("HYPERFLOW_ATTEMPT"), value("HYPERFLOW_RESUME_FROM")), ("1".into(), String::new()));
    assert!(value("TMPDIR").starts_with(value("HYPERFLOW_SHARD").strip_suffix("/shard.json").unwrap()));
    assert!(text.contains("<0$(HYPERFLOW_RUN)> $(NOT_SET)"), "{text}");
    let ours = text.lines().filter(|line| line.starts_with("HYPERFLOW_")).count();
    assert_eq!(ours, 10, "exactly what is promised: {text}");
    assert!(!Path::new(&value("TMPDIR")).exists(), "it is gone with the worker");
    let shard = text.lines().find(|line| line.starts_with('{')).unwrap();
    let shard: Value = serde_json::from_str(&shard[..=shard.rfind('}').unwrap()]).unwrap();
    assert_eq!((&shard["version"], &shard["outputs"]), (&json!(1), &json!(["part-000000"])));
    assert_eq!((&shard["inputs"][0]["path"], &shard["inputs"][0]["length"]), (&json!("data"), &json!(14)));
}

#[test]
fn a_hundred_megabytes_go_through_cat() {
    let mut volume = program(&["cat"], "Stdin", "Stdout");
    let input = noise(100 * MIB);
    fs::write(volume.path("in/data"), &input).unwrap();
    volume.spec["workers"]["slots"] = json!(1);
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert!(fs::read(volume.path("out/part-000000")).unwrap() == input);
}

#[test]
fn items_and_numbers_come_as_lines_or_in_the_environment() {
    let mut volume = script("cat", "Stdin", "Stdout").items(&["a b", "c", "d"]);
    volume.spec["source"]["items"]["itemsPerShard"] = json!(2);
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), "a b\nc\n");
    let mut volume = script("wc -l", "Stdin", "Stdout");
    volume.spec["source"] = json!({"numbers": {"start": -1, "count": 300_000, "numbersPerShard": 200_000}});
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result().trim(), "200000");
    let volume = script("echo \"<$HYPERFLOW_ITEM>\"", "None", "Stdout").items(&["x y"]);
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), "<x y>\n");
}

#[test]
fn a_job_that_keeps_nothing_touches_no_store() {
    let mut volume = script("echo $HYPERFLOW_START $HYPERFLOW_COUNT > $OUT", "None", "None");
    volume.spec["source"] = json!({"numbers": {"count": 25, "numbersPerShard": 10}});
    let out = volume.path("said");
    volume.exec()["command"] =
        json!(["sh", "-c", format!("echo $HYPERFLOW_START $HYPERFLOW_COUNT > {}", out.display())]);
    assert_eq!(run(&volume.work(1), 2, 10, None).unwrap(), Published { bytes: 0, crc32c: 0, found: false });
    assert_eq!(fs::read_to_string(out).unwrap(), "20 5\n");
    assert!(!volume.path("out").exists());
}

#[test]
fn a_job_with_records_knows_that_a_shard_is_done_and_what_it_said() {
    let mut volume =
        script("echo $HYPERFLOW_ITEM >> $0; printf fine > $HYPERFLOW_RESULT", "None", "None").items(&["x"]);
    let (records, out) = (volume.path("records"), volume.path("said"));
    fs::create_dir(&records).unwrap();
    volume.spec["records"] = json!({"url": format!("file://{}/", records.display())});
    volume.exec()["command"].as_array_mut().unwrap().push(json!(out.display().to_string()));
    assert!(!run(&volume.planned(1), 0, 10, None).unwrap().found);
    assert!(run(&volume.planned(2), 0, 11, None).unwrap().found, "it is not run again");
    assert_eq!(fs::read_to_string(out).unwrap(), "x\n");
    let folder = records.join(volume.uid).join("records");
    let texts: Vec<String> = names(&folder).iter().map(|name| fs::read_to_string(folder.join(name)).unwrap()).collect();
    assert!(texts.iter().any(|text| text.contains("\"result\":\"fine\"")), "{texts:?}");
}

#[test]
fn what_cannot_be_started_ends_the_job_and_says_what_to_correct() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let mut other = fs::read("/bin/true").unwrap();
    // The machine of an ELF file: MIPS, which this is not.
    other[18..20].copy_from_slice(&[0x08, 0x00]);
    for dir in [None, Some("/")] {
        for (command, reason, text) in [
            ("/app/convert.py".to_owned(), "ProgramNotFound", "no such file. The image's ENTRYPOINT is not used"),
            (
                "no-such-program".into(),
                "ProgramNotFound",
                "cannot execute 'no-such-program' in image 'registry.example",
            ),
            (file("plain", b"#!/bin/sh\n", 0o644), "ProgramNotExecutable", "permission denied"),
            (folder.path().display().to_string(), "ProgramNotExecutable", "permission denied"),
            (file("other", &other, 0o755), "ProgramFormat", "not a program for this machine (x86_64)"),
            (file("text", b"echo no\n", 0o755), "ProgramFormat", "script without a `#!` line"),
            (file("lost", b"#!/no/python -u\n", 0o755), "ProgramFormat", "its first line names '/no/python -u'"),
        ] {
            let mut volume = program(&[&command], "None", "Stdout").items(&["x"]);
            if let Some(dir) = dir {
                volume.exec()["workingDir"] = json!(dir);
            }
            let failure = fails(&volume);
            assert_eq!((failure.reason.as_str(), failure.ends_job), (reason, true), "{command}: {}", failure.message);
            assert_eq!(failure.class, FailureClass::Application);
            assert!(failure.message.contains(text), "{}", failure.message);
        }
    }
    let mut volume = program(&["true"], "None", "Stdout").items(&["x"]);
    volume.exec()["workingDir"] = json!("/no/such/place");
    assert!(fails(&volume).message.contains("no directory '/no/such/place', which is `spec.task.exec.workingDir`"));
}

#[test]
fn how_a_program_ends_is_what_its_failure_says() {
    for (text, class, reason, message) in [
        ("echo first >&2; echo why >&2; exit 3", FailureClass::Application, "ExitCode", "exit code 3: first | why"),
        ("exit 65", FailureClass::BadInput, "BadInput", "exit code 65"),
        ("kill -SEGV $$$$", FailureClass::Application, "Signal", "was ended by SIGSEGV"),
        ("kill -KILL $$$$", FailureClass::Application, "Signal", "was ended by SIGKILL"),
        ("head -c 5000 /dev/zero > $HYPERFLOW_RESULT", FailureClass::Application, "ResultTooLarge", "5000 bytes"),
        ("printf '\\377' > $HYPERFLOW_RESULT", FailureClass::Application, "BadResult", "than UTF-8 text"),
    ] {
        let failure = fails(&script(text, "Stdin", "Stdout"));
        assert_eq!((failure.class, failure.reason.as_str(), failure.ends_job), (class, reason, false), "{text}");
        assert!(failure.message.contains(message), "{}", failure.message);
    }
    let mut volume = script("echo found; exit 1", "Stdin", "Stdout");
    volume.exec()["successExitCodes"] = json!([0, 1]);
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), "found\n");
}

#[test]
fn who_does_not_read_or_says_too_much_does_no_harm() {
    let quiet = script("exec <&-; echo done", "Stdin", "Stdout");
    fs::write(quiet.path("in/data"), noise(5 * MIB)).unwrap();
    run(&quiet.planned(1), 0, 10, None).unwrap();
    assert_eq!(quiet.result(), "done\n");
    let never = script("echo done", "Stdin", "Stdout");
    fs::write(never.path("in/data"), noise(5 * MIB)).unwrap();
    run(&never.planned(1), 0, 10, None).unwrap();
    assert_eq!(never.result(), "done\n");
    let closes = script("echo early; exec >&-; cat > /dev/null; sleep 0.1", "Stdin", "Stdout");
    run(&closes.planned(1), 0, 10, None).unwrap();
    assert_eq!(closes.result(), "early\n");
    let loud = script("head -c 300000000 /dev/zero >&2; echo >&2; echo why >&2; exit 9", "Stdin", "Stdout");
    let failure = fails(&loud);
    assert!(failure.message.ends_with("why") && failure.message.len() < 1024, "{}", failure.message);
}

#[test]
fn nothing_of_a_program_is_left_running() {
    let began = Instant::now();
    let holds = script("echo before; sleep 7001.25 & exit 0", "Stdin", "Stdout");
    run(&holds.planned(1), 0, 10, None).unwrap();
    assert_eq!(holds.result(), "before\n");
    assert!(is_gone("7001.25"));
    let escapes = script("echo x; setsid sh -c 'sleep 7002.25; :' & sleep 0.2; exit 0", "Stdin", "Stdout");
    run(&escapes.planned(1), 0, 10, None).unwrap();
    assert!(is_gone("7002.25"));
    let hidden = script(
        "setsid env -i PATH=$PATH sh -c '(sleep 7003.25 &) ; sleep 7004.25' </dev/null >/dev/null 2>&1 & sleep 0.2; exit 3",
        "Stdin",
        "Stdout",
    );
    assert_eq!(fails(&hidden).exit_code, Some(3));
    let since = Instant::now();
    // Who has hidden whose it is goes when nobody else runs, and tests run side by side.
    while !(is_gone("7003.25") && is_gone("7004.25")) && since.elapsed() < Duration::from_secs(60) {
        let _ = run(&script("true", "Stdin", "Stdout").planned(1), 0, 10, None);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_gone("7003.25") && is_gone("7004.25"));
    let forks = script("(sleep 0.3; echo late) & exit 0", "Stdin", "Stdout");
    run(&forks.planned(1), 0, 10, None).unwrap();
    assert_eq!(forks.result(), "late\n", "what is said within a second counts");
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
}

#[test]
fn limits_end_a_program() {
    let mut volume = script("sleep 7011.25", "Stdin", "Stdout");
    volume.spec["failurePolicy"] = json!({"attemptDeadlineSeconds": 1});
    let failure = fails(&volume);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Timeout, "AttemptDeadline"));
    let mut volume = script("sleep 7012.25", "Stdin", "Stdout");
    volume.spec["failurePolicy"] = json!({"progressTimeoutSeconds": 2});
    let failure = fails(&volume);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Timeout, "NoProgress"), "{}", failure.message);
    let mut volume = script("head -c 9000000 /dev/zero > $TMPDIR/x; sleep 7013.25", "Stdin", "Stdout");
    volume.spec["workers"]["scratch"] = json!({"sizeLimit": "4Mi"});
    let failure = fails(&volume);
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Application, "ScratchFull"));
    let volume = script("head -c 100000000 /dev/zero > $HYPERFLOW_CHECKPOINT; sleep 7014.25", "Stdin", "Stdout");
    let failure = fails(&volume);
    assert_eq!(failure.reason, "CheckpointTooLarge");
    assert!(failure.message.contains("has 100000000 bytes, and may have 4194304"), "{}", failure.message);
    assert!(["7011.25", "7012.25", "7013.25", "7014.25"].into_iter().all(is_gone));
}

#[test]
fn slow_work_is_progress_while_its_output_grows() {
    let mut volume =
        script("for i in 1 2 3 4 5 6 7 8; do echo $i >> $HYPERFLOW_OUTPUT; sleep 0.5; done", "File", "File");
    volume.spec["failurePolicy"] = json!({"progressTimeoutSeconds": 3});
    run(&volume.planned(1), 0, 10, None).unwrap();
}

/// Starts shard 0 of a volume, and orders a stop as soon as `ready` is there; returns how it ended, and what it said.
fn stopped(volume: &Volume, how: Stop, ready: &Path) -> (Result<Published, Fault>, Vec<Event>, Duration) {
    let work = volume.planned(1);
    let Started { attempt, stop, mut reports } = start(Target::Shard(0), 10, None);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let attempt = attempt;
            shard::run(&work, &attempt, 0)
        });
        let since = Instant::now();
        while !ready.exists() && since.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.order(how);
        let ordered = Instant::now();
        let ended = running.join().unwrap();
        let took = ordered.elapsed();
        (ended, std::iter::from_fn(|| reports.try_recv().ok()).collect(), took)
    })
}

#[test]
fn a_stop_at_once_is_one() {
    let mut volume = script("", "Stdin", "Stdout");
    let ready = volume.path("ready");
    volume.exec()["command"] = json!(["sh", "-c", format!("trap '' TERM; touch {}; sleep 7021.25", ready.display())]);
    let (ended, _, took) = stopped(&volume, Stop::Now, &ready);
    assert!(matches!(ended, Err(Fault::Stopped)) && took < Duration::from_secs(1), "{ended:?} {took:?}");
    assert!(is_gone("7021.25"));
}

#[test]
fn who_ignores_sigterm_is_killed_when_its_time_is_over() {
    let mut volume = script("", "Stdin", "Stdout");
    let ready = volume.path("ready");
    volume.spec["workers"]["terminationGracePeriodSeconds"] = json!(2);
    let script = format!("trap '' TERM; touch {}; while :; do sleep 0.1; done", ready.display());
    volume.exec()["command"] = json!(["sh", "-c", script]);
    let (ended, _, took) = stopped(&volume, Stop::AfterCheckpoint, &ready);
    assert!(matches!(ended, Err(Fault::Stopped)), "{ended:?}");
    assert!((Duration::from_millis(1400)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[test]
fn a_program_goes_on_from_the_checkpoint_that_it_made_when_it_was_told_to_leave() {
    let mut volume = script("", "Stdin", "Stdout");
    let ready = volume.path("ready");
    let script = format!(
        "if [ -n \"$HYPERFLOW_RESUME_FROM\" ]; then echo resumed from $(cat $HYPERFLOW_RESUME_FROM); exit 0; fi
         trap 'echo step 7 > $HYPERFLOW_CHECKPOINT.new; mv $HYPERFLOW_CHECKPOINT.new $HYPERFLOW_CHECKPOINT; exit 0' TERM
         touch {}; while :; do sleep 0.05; done",
        ready.display()
    );
    volume.exec()["command"] = json!(["sh", "-c", script]);
    let (ended, said, _) = stopped(&volume, Stop::AfterCheckpoint, &ready);
    assert!(matches!(ended, Err(Fault::Stopped)), "{ended:?}");
    let checkpoint = said.iter().find_map(|event| match event {
        Event::Checkpointed { checkpoint, .. } => Some(*checkpoint),
        _ => None,
    });
    let work = volume.planned(2);
    run(&work, 0, 20, Some(checkpoint.unwrap())).unwrap();
    assert_eq!(volume.result(), "resumed from step 7\n");
}

#[test]
fn a_checkpoint_that_was_changed_or_is_of_another_program_is_none() {
    let text = "printf %s \"from<\"; cat $HYPERFLOW_RESUME_FROM /dev/null; echo '>'
                echo mark > $HYPERFLOW_CHECKPOINT; sleep 2.6; [ -n \"$HYPERFLOW_RESUME_FROM\" ]";
    let mut volume = script(text, "None", "Stdout").items(&["x"]);
    let work = volume.planned(1);
    let Started { attempt, mut reports, .. } = start(Target::Shard(0), 10, None);
    let failure = refused(shard::run(&work, &attempt, 0));
    assert_eq!(failure.exit_code, Some(1));
    drop(attempt);
    let checkpoint = std::iter::from_fn(|| reports.try_recv().ok()).find_map(|event| match event {
        Event::Checkpointed { checkpoint, .. } => Some(checkpoint),
        _ => None,
    });
    let checkpoint = checkpoint.unwrap();
    let folder = volume.own("ckpt/0");
    let data = names(&folder).into_iter().find(|name| name.starts_with("data")).unwrap();
    fs::write(folder.join(&data), "fake\n").unwrap();
    volume.spec["failurePolicy"] = json!({"attemptDeadlineSeconds": 60});
    assert_eq!(refused(run(&volume.planned(2), 0, 11, Some(checkpoint))).exit_code, Some(1), "it starts from zero");
    fs::write(folder.join(&data), "mark\n").unwrap();
    run(&volume.planned(3), 0, 12, Some(checkpoint)).unwrap();
    assert_eq!(volume.result(), "from<mark\n>\n");
}

#[test]
fn files_are_given_and_taken() {
    let mut volume = program(&["cp", "$(HYPERFLOW_INPUT)", "$(HYPERFLOW_OUTPUT)"], "File", "File");
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), "one\ntwo\nthree\n");
    let text = "printf %s \"$HYPERFLOW_INPUT\" > $HYPERFLOW_OUTPUT";
    volume = script(text, "File", "File");
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), volume.path("in/data").display().to_string(), "the mounted file itself");
    let mut volume = program(&["cp", "$(HYPERFLOW_INPUT)", "$(HYPERFLOW_OUTPUT)"], "File", "File");
    fs::write(volume.path("in/data"), noise(10_000)).unwrap();
    volume.spec["source"]["files"] =
        json!({"url": volume.spec["source"]["files"]["url"], "boundary": "Byte", "bytesPerShard": "4Ki"});
    let work = volume.planned(1);
    run(&work, 1, 10, None).unwrap();
    assert_eq!(fs::read(volume.path("out/part-000001")).unwrap(), noise(10_000)[4096..8192]);
    let volume = program(&["cp", "$(HYPERFLOW_INPUT)", "$(HYPERFLOW_OUTPUT)"], "File", "File").items(&["x y"]);
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), "x y\n");
}

#[test]
fn a_range_is_named_and_a_directory_has_all_files() {
    let mut volume = script("echo $HYPERFLOW_INPUT $HYPERFLOW_INPUT_OFFSET $HYPERFLOW_INPUT_LENGTH", "Range", "Stdout");
    volume.spec["source"]["files"] =
        json!({"url": volume.spec["source"]["files"]["url"], "boundary": "Line", "bytesPerShard": "4Ki"});
    fs::write(volume.path("in/data"), b"line\n".repeat(1000)).unwrap();
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), format!("{} 0 4100\n", volume.path("in/data").display()));
    let mut volume = script("cd $HYPERFLOW_INPUT; find . -type l | sort; cat data deep/b", "Directory", "Stdout");
    fs::create_dir(volume.path("in/deep")).unwrap();
    fs::write(volume.path("in/deep/b"), "second\n").unwrap();
    volume.spec["source"]["files"]["filesPerShard"] = json!(5);
    run(&volume.planned(1), 0, 10, None).unwrap();
    assert_eq!(volume.result(), "./data\n./deep/b\none\ntwo\nthree\nsecond\n");
}

#[test]
fn input_that_changes_under_a_program_ends_the_job() {
    let volume = script("echo more >> $HYPERFLOW_INPUT; echo x > $HYPERFLOW_OUTPUT", "File", "File");
    let failure = fails(&volume);
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("InputChanged", true), "{}", failure.message);
    assert!(!volume.path("out/part-000000").exists());
}

#[test]
fn output_that_is_none_is_a_failure_that_says_so() {
    for (text, output, reason, message) in [
        ("true", "File", "NoOutput", "nothing at HYPERFLOW_OUTPUT"),
        ("mkdir $HYPERFLOW_OUTPUT", "File", "BadOutput", "must be a regular file, and is a directory"),
        ("ln -s /etc/passwd $HYPERFLOW_OUTPUT", "File", "BadOutput", "regular file, and is a link"),
        ("true", "Directory", "NoOutput", "nothing at HYPERFLOW_OUTPUT"),
        ("mkdir $HYPERFLOW_OUTPUT; ln -s /etc/passwd $HYPERFLOW_OUTPUT/p", "Directory", "BadOutput", "leads out of it"),
        ("mkdir $HYPERFLOW_OUTPUT; mkfifo $HYPERFLOW_OUTPUT/p", "Directory", "BadOutput", "'p' is a pipe"),
    ] {
        let failure = fails(&script(text, "File", output));
        assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Application, reason), "{text}");
        assert!(failure.message.contains(message) && !failure.ends_job, "{}", failure.message);
    }
}

#[test]
fn a_directory_is_published_as_one_and_found_by_the_next() {
    let text = "mkdir -p $HYPERFLOW_OUTPUT/a/b $HYPERFLOW_OUTPUT/empty; cd $HYPERFLOW_OUTPUT
                printf one > x; printf second > a/b/y; ln -s ../x a/link; : > a/nothing; chmod 500 a/b";
    let volume = script(text, "File", "Directory");
    let work = volume.planned(1);
    let published = run(&work, 0, 10, None).unwrap();
    assert_eq!((published.bytes, published.found), (12, false));
    let out = volume.path("out/part-000000");
    let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
    assert_eq!([read("x"), read("a/b/y"), read("a/link"), read("a/nothing")], ["one", "second", "one", ""]);
    assert!(!out.join("empty").exists());
    // Whoever died between the commit and the names left this; anyone goes on from the commit alone.
    fs::remove_file(out.join("a/b/y")).unwrap();
    sweep(&work).unwrap();
    let found = run(&volume.planned(2), 0, 11, None).unwrap();
    assert_eq!((found.bytes, found.crc32c, found.found), (12, published.crc32c, true));
    assert_eq!(read("a/b/y"), "second");
    assert_eq!(names(&volume.own("pub")).len(), 2, "the commit and its folder");
}

#[test]
fn of_two_that_make_a_directory_one_publishes_and_the_other_finds_it() {
    let text =
        "mkdir $HYPERFLOW_OUTPUT; echo $HYPERFLOW_EPOCH | tee $HYPERFLOW_OUTPUT/x > $HYPERFLOW_OUTPUT/y; sleep 0.2";
    let volume = script(text, "File", "Directory");
    let (one, other) = (volume.planned(1), volume.planned(2));
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| run(&one, 0, 11, None).unwrap());
        let b = scope.spawn(|| run(&other, 0, 12, None).unwrap());
        (a.join().unwrap(), b.join().unwrap())
    });
    assert!(a.found != b.found && a.crc32c == b.crc32c, "{a:?} {b:?}");
    let read = |name: &str| fs::read_to_string(volume.path("out/part-000000").join(name)).unwrap();
    assert_eq!(read("x"), read("y"));
    assert_eq!(names(&volume.own("pub")).len(), 2, "who came second has cleared away what it made");
}

#[test]
fn files_of_one_name_cannot_be_in_one_directory() {
    let mut volume = script("ls $HYPERFLOW_INPUT", "Directory", "Stdout");
    for folder in ["m1", "m2"] {
        fs::create_dir(volume.path(folder)).unwrap();
        fs::write(volume.path(folder).join("same"), folder).unwrap();
    }
    let list = format!("{}\n{}\n", volume.path("m1/same").display(), volume.path("m2/same").display());
    fs::write(volume.path("list"), list).unwrap();
    let mounts = json!([
        {"name": "data", "mountPath": volume.path("m1")},
        {"name": "data", "mountPath": volume.path("m2")},
        {"name": "data", "mountPath": volume.path("in").parent().unwrap()}
    ]);
    volume.spec["workers"]["volumeMounts"] = mounts;
    let url = format!("file://{}", volume.path("list").display());
    volume.spec["source"] = json!({"files": {"manifest": {"url": url}, "boundary": "File", "filesPerShard": 2}});
    let work = volume.planned(1);
    let failure = refused(run(&work, 0, 10, None));
    assert_eq!((failure.reason.as_str(), failure.ends_job), ("InputNameCollision", true), "{}", failure.message);
    assert!(
        failure.message.contains("/m2/same' cannot be in the directory of its shard as 'same'"),
        "{}",
        failure.message
    );
}

#[test]
fn a_directory_is_not_mixed_with_what_is_there() {
    let volume = script("mkdir $HYPERFLOW_OUTPUT; echo x > $HYPERFLOW_OUTPUT/x", "File", "Directory");
    let work = volume.planned(1);
    fs::create_dir_all(volume.path("out/part-000000")).unwrap();
    fs::write(volume.path("out/part-000000/x"), "not ours").unwrap();
    let failure = refused(run(&work, 0, 10, None));
    assert_eq!(failure.reason, "OutputExists", "{}", failure.message);
    assert_eq!(fs::read_to_string(volume.path("out/part-000000/x")).unwrap(), "not ours");
}

/// Not a test of anything but time: how many programs a second two slots start, wait for and clear away.
#[test]
fn how_fast_programs_that_do_nothing_are_run() {
    let volume = program(&["/bin/sh", "-c", ":"], "None", "None").items(&["x"]);
    let work = volume.work(1);
    let began = Instant::now();
    let runs = 500;
    std::thread::scope(|scope| {
        for slot in 0..2 {
            let work = &work;
            scope.spawn(move || (0..runs).for_each(|n| assert!(run(work, 0, slot * runs + n + 1, None).is_ok())));
        }
    });
    let rate = (2 * runs) as f64 / began.elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "{rate:.0} programs a second");
}
