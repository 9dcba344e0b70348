package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const statLine = `71 (a ) b (c) S 1 71 71 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 39112 10444 18446744073709551615`

func TestParseStatSurvivesAnyName(t *testing.T) {
	start, err := parseStat(statLine)
	if err != nil || start != 4242 {
		t.Fatalf("got %d, %v", start, err)
	}
}

func TestParseStatRefusesTheDead(t *testing.T) {
	for _, stat := range []string{
		strings.Replace(statLine, ") S ", ") Z ", 1),
		"71 (short) S 1",
		"no name at all",
	} {
		if _, err := parseStat(stat); err == nil {
			t.Errorf("%q was taken for a running process", stat)
		}
	}
}

func TestRecordIsOfOneProcessOnly(t *testing.T) {
	command := exec.Command("sleep", "60")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := startTicks(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	reused := record{PID: command.Process.Pid, Start: start + 1}
	if reused.running() {
		t.Error("a process that was started at another time counts as the recorded one")
	}
	if err := reused.signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	same := record{PID: command.Process.Pid, Start: start}
	if !same.running() {
		t.Fatal("the recorded process was not found, or somebody else's record killed it")
	}
	if err := same.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil {
		t.Error("the process was not killed")
	}
	if same.running() {
		t.Error("a dead process counts as running")
	}
}

func TestWaitForReportsTheLastFailure(t *testing.T) {
	last := errors.New("not yet")
	err := waitFor(context.Background(), 150*time.Millisecond, "nothing", func(context.Context) error { return last })
	if !errors.Is(err, last) {
		t.Errorf("got %v", err)
	}
}

func TestSpecChangesWithConfiguration(t *testing.T) {
	path := t.TempDir() + "/config"
	d := daemon{name: "test", argv: []string{"a", "b"}, files: []string{path}}
	specs := map[string]bool{}
	for _, content := range []string{"one", "two"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		spec, err := d.spec()
		if err != nil {
			t.Fatal(err)
		}
		specs[spec] = true
	}
	if len(specs) != 2 {
		t.Error("two configurations have one checksum")
	}
}
