package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestEveryFaultExplainsItself(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range faults() {
		if seen[f.name] {
			t.Errorf("%s is there twice", f.name)
		}
		seen[f.name] = true
		if err := f.run(t.Context(), []string{"--help"}); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s --help: got %v", f.name, err)
		}
		if err := f.run(t.Context(), []string{"one", "two"}); !errors.Is(err, errUsage) {
			t.Errorf("%s takes two arguments: got %v", f.name, err)
		}
	}
	for name := range seen {
		if undone, found := strings.CutPrefix(name, "fault stop-"); found && !seen["fault start-"+undone] {
			t.Errorf("%s has no counterpart", name)
		}
	}
}

func TestUnknownFaultsAreRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"none"}, {"--pod", "p"}} {
		if err := faultCommand(t.Context(), args); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func TestPausedProcessContinuesWhateverHappens(t *testing.T) {
	command := exec.Command("sleep", "60")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := command.Wait(); err == nil {
			t.Error("the process was not killed")
		}
	})
	start, err := startTicks(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := record{PID: command.Process.Pid, Start: start}
	failure := errors.New("the copy failed")
	for _, want := range []error{nil, failure} {
		err := r.paused(t.Context(), func() error {
			if err := r.halted(); err != nil {
				t.Errorf("it runs while it is paused: %v", err)
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if r.halted() == nil {
			t.Error("it does not run on")
		}
	}
	gone := record{PID: r.PID, Start: start + 1}
	if err := gone.paused(t.Context(), func() error { return nil }); err == nil {
		t.Error("another process with the same pid was taken for it")
	}
}

func TestSavedStoreIsKnownAgain(t *testing.T) {
	ours, other := savedStore(t, "ours"), savedStore(t, "other")
	file := t.TempDir() + "/a:b.tar"
	if err := ours.packStore(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if err := other.unpackStore(t.Context(), file); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("another cluster took it: %v", err)
	}
	if err := ours.unpackStore(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(ours.path(unpacked, storeName, "member", "db"))
	if err != nil || string(content) != "ours" {
		t.Errorf("got %q, %v", content, err)
	}
	if _, err := os.Stat(ours.path(unpacked, storeName, "member", "0.tmp")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blank file was saved: %v", err)
	}
}

// savedStore makes the part of a state folder that is saved.
func savedStore(t *testing.T, name string) *state {
	s := &state{dir: t.TempDir()}
	for path, content := range map[string]string{
		s.birthPath():                          name,
		s.path(storeName, "member", "db"):      name,
		s.path(storeName, "member", "0.tmp"):   "blank",
		s.path(storeName, "member", "log.wal"): "log",
	} {
		if err := writeFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestCableThatIsNotThereIsCut(t *testing.T) {
	// No machine of ours has that many nodes.
	n := node{number: maxNodes}
	if err := n.expectCut(true); err != nil {
		t.Error(err)
	}
	if err := n.expectCut(false); err == nil {
		t.Error("a cable that is not there counts as up")
	}
	if err := n.cut(context.Background()); err == nil {
		t.Error("it was cut")
	}
}
