package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	defaultDir  = "/var/lib/hyperflow-cluster"
	dirVariable = "HYPERFLOW_CLUSTER_DIR"
	birthFile   = "cluster.json"
)

// state is the one folder a cluster lives in.
type state struct {
	dir     string
	started time.Time // of this invocation, for progress lines
}

// openState makes the folder and takes its lock, waiting for other invocations.
// The lock is held until the returned function is called or the process ends.
func openState(ctx context.Context, lock int) (*state, func(), error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("only root can make network namespaces and mounts")
	}
	s, err := findState()
	if err != nil {
		return nil, nil, err
	}
	unlock, err := s.lock(ctx, lock)
	if err != nil {
		return nil, nil, err
	}
	return s, unlock, nil
}

// findState names the folder and takes no lock.
func findState() (*state, error) {
	dir := os.Getenv(dirVariable)
	if dir == "" {
		dir = defaultDir
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the state folder: %w", err)
	}
	// The kernel lists mounts by their real path, and so must we.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return &state{dir: dir, started: time.Now()}, nil
}

func (s *state) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *state) kubeconfig() string { return s.path("admin.kubeconfig") }

// say prints one line of progress.
func (s *state) say(format string, args ...any) {
	fmt.Printf("[%6.1fs] %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, args...))
}

// lock locks the folder itself: no lock file is left behind by a purge. After a
// wait the folder may be another one than the one locked, hence the loop.
func (s *state) lock(ctx context.Context, how int) (func(), error) {
	for {
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the state folder: %w", err)
		}
		folder, err := os.Open(s.dir)
		if err != nil {
			return nil, fmt.Errorf("open the state folder: %w", err)
		}
		if err := s.waitForLock(ctx, folder, how); err != nil {
			return nil, errors.Join(err, folder.Close())
		}
		if same, err := stillThere(folder, s.dir); err != nil {
			return nil, errors.Join(err, folder.Close())
		} else if same {
			return func() { folder.Close() }, nil
		}
		if err := folder.Close(); err != nil {
			return nil, fmt.Errorf("close the state folder: %w", err)
		}
	}
}

func (s *state) waitForLock(ctx context.Context, folder *os.File, how int) error {
	for told := false; ; {
		err := syscall.Flock(int(folder.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", s.dir, err)
		}
		if !told {
			s.say("waiting for another cluster command to end")
			told = true
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the lock on %s: %w", s.dir, err)
		}
	}
}

func stillThere(folder *os.File, path string) (bool, error) {
	held, err := folder.Stat()
	if err != nil {
		return false, fmt.Errorf("look at the locked folder: %w", err)
	}
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the state folder: %w", err)
	}
	return os.SameFile(held, now), nil
}

// birth says which boot of the machine this cluster was started in. A cluster
// without one, from another boot, or whose store is gone is a wreck: nothing of
// it can be kept.
type birth struct {
	Boot string    `json:"boot"`
	At   time.Time `json:"at"`
}

func (s *state) birthPath() string { return s.path(birthFile) }

func (s *state) alive() (bool, error) {
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	var b birth
	if readJSON(s.birthPath(), &b) != nil || b.Boot != boot {
		return false, nil
	}
	_, err = os.Stat(s.storeFolder())
	return err == nil, nil
}

func (s *state) markAlive() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	return writeJSON(s.birthPath(), 0o644, birth{Boot: boot, At: time.Now()})
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// writeFile replaces a file in one step: a reader, or the next invocation after
// this one was killed, sees the old content or the new, never half of one.
// Nothing written by it is relied on after a power failure.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of %s: %w", path, err)
	}
	part := path + ".part"
	if err := os.WriteFile(part, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return nil
}

func writeJSON(path string, mode fs.FileMode, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(content, '\n'), mode)
}

func readJSON(path string, value any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(content, value); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
