package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// sickLimit is how long a running daemon may fail to answer before it is
	// replaced; long enough for one that has only just been started.
	sickLimit = 10 * time.Second
	// startLimit is how long a new daemon may take to answer.
	startLimit = 90 * time.Second
)

// daemon is a process that stays when this one ends.
type daemon struct {
	name   string   // of its record and its log
	argv   []string // program and arguments
	inside []string // namespaces to run in, as nsenter has them; empty for the host's
	group  string   // cgroup to run in
	files  []string // its configuration: when that changes the daemon is replaced
	probe  func(context.Context) error
}

// record identifies a daemon for good. A pid alone would not do: the kernel
// gives it to somebody else after the process has ended.
type record struct {
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"` // clock ticks since boot
	Boot    string    `json:"boot"`
	Spec    string    `json:"spec"` // checksum of arguments and configuration
	Started time.Time `json:"started"`
}

func (s *state) recordPath(name string) string { return s.path("run", name+".json") }
func (s *state) logPath(name string) string    { return s.path("log", name+".log") }

// find returns the daemon's record and whether that very process still runs. A
// record that cannot be read, as a power failure may leave one, is none: the
// process is then found by its cgroup.
func (s *state) find(name string) (record, bool, error) {
	boot, err := bootID()
	if err != nil {
		return record{}, false, err
	}
	var r record
	if readJSON(s.recordPath(name), &r) != nil {
		return record{}, false, nil
	}
	return r, r.Boot == boot && r.running(), nil
}

func (r record) running() bool {
	start, err := startTicks(r.PID)
	return err == nil && start == r.Start
}

// startTicks returns when a process was started, in clock ticks since boot. It
// fails for a process that has ended, collected or not.
func startTicks(pid int) (uint64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(content))
}

// statFields splits /proc/PID/stat from the third field on, which is the state.
// The second is the program's name in brackets and may hold anything, brackets
// and blanks included.
func statFields(stat string) ([]string, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return nil, errors.New("process status without a name")
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) == 0 {
		return nil, errors.New("process status without a state")
	}
	return fields, nil
}

// parseStat reads the start time out of /proc/PID/stat.
func parseStat(stat string) (uint64, error) {
	const starttime = 19 // field 22 of proc(5)
	fields, err := statFields(stat)
	if err != nil {
		return 0, err
	}
	if len(fields) <= starttime {
		return 0, errors.New("process status is too short")
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, errors.New("process has ended")
	}
	return strconv.ParseUint(fields[starttime], 10, 64)
}

// signal sends a signal to the recorded process and to no other: the handle is
// taken first, and what it refers to is checked after that.
func (r record) signal(signal syscall.Signal) error {
	process, err := os.FindProcess(r.PID)
	if err != nil {
		return fmt.Errorf("open process %d: %w", r.PID, err)
	}
	defer process.Release()
	if !r.running() {
		return nil
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", r.PID, err)
	}
	return nil
}

// stop ends a daemon, at once: the data is thrown away with the cluster.
func (s *state) stop(ctx context.Context, name string) error {
	r, running, err := s.find(name)
	if err != nil {
		return err
	}
	if running {
		if err := r.signal(syscall.SIGKILL); err != nil {
			return err
		}
		err := waitFor(ctx, 10*time.Second, name+" to end", func(context.Context) error {
			if r.running() {
				return fmt.Errorf("process %d is still there", r.PID)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := os.Remove(s.recordPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of %s: %w", name, err)
	}
	return nil
}

// ensure leaves a daemon running that was started from exactly this description
// and answers its probe. One that does is not touched.
func (s *state) ensure(ctx context.Context, groups cgroups, d daemon) error {
	spec, err := d.spec()
	if err != nil {
		return err
	}
	r, running, err := s.find(d.name)
	if err != nil {
		return err
	}
	if running && r.Spec == spec {
		if d.answers(ctx, r) {
			return nil
		}
		s.say("%s (pid %d) does not answer, replacing it", d.name, r.PID)
	}
	if err := s.stop(ctx, d.name); err != nil {
		return err
	}
	exited, err := s.start(groups, d, spec)
	if err != nil {
		return err
	}
	if err := s.waitForStart(ctx, d, exited); err != nil {
		return err
	}
	s.say("%s is up", d.name)
	return nil
}

// answers gives a running daemon its time to answer, as long as it runs.
func (d daemon) answers(ctx context.Context, r record) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := waitFor(ctx, sickLimit, d.name, func(ctx context.Context) error {
		err := d.probe(ctx)
		if err != nil && !r.running() {
			cancel()
		}
		return err
	})
	return err == nil
}

func (d daemon) spec() (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q\n", d.argv, d.inside, d.group)
	for _, path := range d.files {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read the configuration of %s: %w", d.name, err)
		}
		fmt.Fprintf(sum, "%q %q\n", path, content)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// start starts a daemon and writes its record. The channel gets how it ended,
// should it end while we are here to hear it.
func (s *state) start(groups cgroups, d daemon, spec string) (<-chan error, error) {
	for _, folder := range []string{s.path("log"), s.path("run")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("make %s: %w", folder, err)
		}
	}
	log, err := os.OpenFile(s.logPath(d.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", d.name, err)
	}
	defer log.Close()
	argv := d.argv
	if len(d.inside) > 0 {
		// Not "ip netns exec": that remounts /sys and hides the cgroups.
		argv = slices.Concat([]string{"nsenter"}, d.inside, []string{"--"}, argv)
	}
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdout, command.Stderr, command.Dir = log, log, "/"
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }()
	if err := s.register(groups, d, spec, command.Process.Pid); err != nil {
		return nil, errors.Join(err, command.Process.Kill())
	}
	return exited, nil
}

func (s *state) register(groups cgroups, d daemon, spec string, pid int) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	start, err := startTicks(pid)
	if err != nil {
		return fmt.Errorf("see %s start: %w", d.name, err)
	}
	// The group first: it is how a process without a record is found.
	if err := groups.adopt(d.group, pid); err != nil {
		return err
	}
	return writeJSON(s.recordPath(d.name), 0o644, record{PID: pid, Start: start, Boot: boot, Spec: spec, Started: time.Now()})
}

func (s *state) waitForStart(ctx context.Context, d daemon, exited <-chan error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case err := <-exited:
			if err == nil {
				err = errors.New("it ended by itself")
			}
			cancel(err)
		case <-done:
		}
	}()
	err := waitFor(ctx, startLimit, d.name+" to answer", d.probe)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("start %s: %w", d.name, cause)
	}
	if err != nil {
		return fmt.Errorf("%w; the end of %s:\n%s", err, s.logPath(d.name), tail(s.logPath(d.name), 5))
	}
	return nil
}

// tail returns the last lines of a log for an error message.
func tail(path string, lines int) string {
	content, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
