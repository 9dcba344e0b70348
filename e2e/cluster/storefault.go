package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// unpacked is the folder a saved store is unpacked into.
	unpacked = "etcd.unpacked"
	// copyLimit bounds the copy of a store, which takes some hundred milliseconds.
	copyLimit = time.Minute
)

// storeFault saves etcd's data in a file or takes it from there.
type storeFault func(s *state, ctx context.Context, groups cgroups, file string) error

func storeFaultCommand(kind string, do storeFault) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		set := flagsOf("fault " + kind)
		if err := parse(set, args, 1, 1); err != nil {
			return err
		}
		file, err := filepath.Abs(set.Arg(0))
		if err != nil {
			return fmt.Errorf("find %s: %w", set.Arg(0), err)
		}
		s, unlock, err := openState(ctx, syscall.LOCK_EX)
		if err != nil {
			return err
		}
		defer unlock()
		groups, err := findCgroups()
		if err != nil {
			return err
		}
		return do(s, ctx, groups, file)
	}
}

// saveStore copies etcd's files while it is stopped in its tracks. They are then
// as a crash would have left them, which etcd starts from without loss; its
// clients see an answer that takes a moment longer.
func (s *state) saveStore(ctx context.Context, _ cgroups, file string) error {
	r, err := s.expectRunning(storeName)
	if err != nil {
		return err
	}
	part := file + ".part"
	// Fails when all went well: the file then has its final name.
	defer os.Remove(part)
	var pause time.Duration
	err = r.paused(ctx, func() error {
		began := time.Now()
		err := s.packStore(ctx, part)
		pause = time.Since(began)
		return err
	})
	if err != nil {
		return fmt.Errorf("save etcd: %w", err)
	}
	if err := os.Rename(part, file); err != nil {
		return fmt.Errorf("save etcd: %w", err)
	}
	fmt.Printf("save-etcd %s: etcd (pid %d) was paused for %s\n", file, r.PID, pause.Round(time.Millisecond))
	return nil
}

// packStore writes etcd's files to an archive, and the cluster's birth, to know
// the archive again.
func (s *state) packStore(ctx context.Context, file string) error {
	_, err := runFor(ctx, copyLimit, "tar", "--create", "--force-local", "--file="+file,
		// Blank files, kept in reserve for when a log is full.
		"--exclude=*.tmp", "--directory="+s.dir, birthFile, storeName)
	return err
}

// paused runs act while no thread of the process runs. The process continues
// whatever comes of it; one that is killed with us gets replaced by up.
func (r record) paused(ctx context.Context, act func() error) (err error) {
	if err := r.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, r.signal(syscall.SIGCONT))
	}()
	if !r.running() {
		return fmt.Errorf("process %d has ended", r.PID)
	}
	// The signal is on its way to threads that are inside the kernel.
	halted := func(context.Context) error { return r.halted() }
	if err := waitFor(ctx, 5*time.Second, fmt.Sprintf("process %d to stop", r.PID), halted); err != nil {
		return err
	}
	if err := act(); err != nil {
		return err
	}
	if !r.running() {
		return fmt.Errorf("process %d ended meanwhile", r.PID)
	}
	return nil
}

// halted fails while any thread of the process may still run.
func (r record) halted() error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.PID))
	if err != nil {
		return err
	}
	if len(threads) == 0 {
		return errors.New("it has ended")
	}
	for _, thread := range threads {
		content, err := os.ReadFile(thread)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // This thread has ended.
		}
		if err != nil {
			return err
		}
		fields, err := statFields(string(content))
		if err != nil {
			return err
		}
		if fields[0] != "T" {
			return fmt.Errorf("a thread is in state %s", fields[0])
		}
	}
	return nil
}

// restoreStore puts the cluster back to where it was when the file was saved:
// versions of objects go back too, and will be given out a second time.
func (s *state) restoreStore(ctx context.Context, groups cgroups, file string) error {
	kube, a, err := s.madeByUp()
	if err != nil {
		return err
	}
	nodes, err := s.reachableNodes(groups)
	if err != nil {
		return err
	}
	if err := s.unpackStore(ctx, file); err != nil {
		return errors.Join(err, os.RemoveAll(s.path(unpacked)))
	}
	if err := s.replaceStore(ctx); err != nil {
		return err
	}
	if err := s.startControlPlane(ctx, groups, kube, a); err != nil {
		return err
	}
	if err := s.restartClients(ctx, groups, kube, a, nodes); err != nil {
		return err
	}
	api, err := s.newClient()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := s.waitReady(ctx, api, n); err != nil {
			return err
		}
	}
	fmt.Printf("restore-etcd %s: ready, %d nodes\n", file, len(nodes))
	return nil
}

// reachableNodes are those that run. One behind a cut cable cannot be restarted,
// and would go by what it knew before.
func (s *state) reachableNodes(groups cgroups) ([]node, error) {
	all, err := s.nodes()
	if err != nil {
		return nil, err
	}
	var found []node
	for _, n := range all {
		stopped, err := n.stopped(groups)
		if err != nil {
			return nil, err
		}
		if stopped {
			continue
		}
		if err := n.expectCut(false); err != nil {
			return nil, fmt.Errorf("restart the agents of %s: %w", n.name(), err)
		}
		found = append(found, n)
	}
	return found, nil
}

// unpackStore unpacks a saved store beside the one in use, and refuses one that
// another cluster saved: this one's certificates would not fit it.
func (s *state) unpackStore(ctx context.Context, file string) error {
	folder := s.path(unpacked)
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("empty %s: %w", folder, err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", folder, err)
	}
	_, err := runFor(ctx, copyLimit, "tar", "--extract", "--force-local", "--file="+file, "--directory="+folder)
	if err != nil {
		return err
	}
	saved, err := os.ReadFile(filepath.Join(folder, birthFile))
	if err != nil {
		return fmt.Errorf("find out which cluster %s is of: %w", file, err)
	}
	ours, err := os.ReadFile(s.birthPath())
	if err != nil {
		return fmt.Errorf("find out which cluster this is: %w", err)
	}
	if !bytes.Equal(saved, ours) {
		return fmt.Errorf("%s was saved by a cluster that is gone", file)
	}
	return nil
}

// replaceStore stops what uses the store and puts the unpacked one in its place.
func (s *state) replaceStore(ctx context.Context) error {
	for _, name := range []string{apiServerName, storeName} {
		if err := s.stop(ctx, name); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.storeFolder()); err != nil {
		return fmt.Errorf("remove the store in use: %w", err)
	}
	if err := os.Rename(s.path(unpacked, storeName), s.storeFolder()); err != nil {
		return fmt.Errorf("put the saved store in place: %w", err)
	}
	if err := os.RemoveAll(s.path(unpacked)); err != nil {
		return fmt.Errorf("remove %s: %w", s.path(unpacked), err)
	}
	return nil
}

// restartClients restarts every client of the API server that is the cluster's
// own. They would ask to be told of changes after a version that is in the
// future now, and hear of none until it comes.
func (s *state) restartClients(ctx context.Context, groups cgroups, kube string, a *authority, nodes []node) error {
	restarts := []func() error{func() error {
		for _, name := range []string{"controller-manager", "scheduler", "dns"} {
			if err := s.stop(ctx, name); err != nil {
				return err
			}
		}
		return s.startFollowers(ctx, groups, kube, a)
	}}
	for _, n := range nodes {
		restarts = append(restarts, func() error {
			for _, kind := range []string{"kubelet", "proxy"} {
				if err := s.stop(ctx, n.daemon(kind)); err != nil {
					return err
				}
			}
			return s.startAgents(ctx, groups, kube, a, n)
		})
	}
	return parallel(restarts...)
}
