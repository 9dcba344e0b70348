package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

// stopDaemonCommand kills one daemon of the control plane.
func stopDaemonCommand(name string) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		if err := parse(flagsOf("fault stop-"+name), args, 0, 0); err != nil {
			return err
		}
		s, unlock, err := openState(ctx, syscall.LOCK_EX)
		if err != nil {
			return err
		}
		defer unlock()
		r, err := s.expectRunning(name)
		if err != nil {
			return err
		}
		if err := s.stop(ctx, name); err != nil {
			return err
		}
		fmt.Printf("stop-%s: %d\n", name, r.PID)
		return nil
	}
}

// controlStart starts one daemon of the control plane and waits for its answer.
type controlStart func(s *state, ctx context.Context, groups cgroups, kube string, a *authority) error

// startDaemonCommand starts what stopDaemonCommand killed.
func startDaemonCommand(name string, start controlStart) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		if err := parse(flagsOf("fault start-"+name), args, 0, 0); err != nil {
			return err
		}
		s, unlock, err := openState(ctx, syscall.LOCK_EX)
		if err != nil {
			return err
		}
		defer unlock()
		r, running, err := s.find(name)
		if err != nil {
			return err
		}
		if running {
			return fmt.Errorf("%s is not stopped, it runs as process %d", name, r.PID)
		}
		groups, err := findCgroups()
		if err != nil {
			return err
		}
		kube, a, err := s.madeByUp()
		if err != nil {
			return err
		}
		if err := start(s, ctx, groups, kube, a); err != nil {
			return err
		}
		if r, err = s.expectRunning(name); err != nil {
			return err
		}
		fmt.Printf("start-%s: %d\n", name, r.PID)
		return nil
	}
}

// startStoreAgain also waits until an API server that ran on without its store
// has found it again, which takes that some seconds.
func (s *state) startStoreAgain(ctx context.Context, groups cgroups, kube string, _ *authority) error {
	if err := s.startStore(ctx, groups, kube); err != nil {
		return err
	}
	_, running, err := s.find(apiServerName)
	if err != nil || !running {
		return err
	}
	return waitFor(ctx, startLimit, "the API server to find its store", answers(apiURL+"/readyz"))
}

// startAPIServerAgain does not let the API server wait for a store that nobody
// starts.
func (s *state) startAPIServerAgain(ctx context.Context, groups cgroups, kube string, a *authority) error {
	if _, err := s.expectRunning(storeName); err != nil {
		return err
	}
	return s.startAPIServer(ctx, groups, kube, a)
}

func (s *state) expectRunning(name string) (record, error) {
	r, running, err := s.find(name)
	if err == nil && !running {
		err = fmt.Errorf("%s does not run", name)
	}
	return r, err
}

// madeByUp returns what up made and daemons are started from: the binary, not a
// newer one that this tool might compile, and the certificates.
func (s *state) madeByUp() (string, *authority, error) {
	target, err := os.Readlink(s.path("bin", "kube"))
	if err != nil {
		return "", nil, fmt.Errorf("find the cluster's binary, is it up?: %w", err)
	}
	kube := s.path("bin", target)
	if _, err := os.Stat(kube); err != nil {
		return "", nil, fmt.Errorf("find the cluster's binary, is it up?: %w", err)
	}
	a, err := s.ensurePKI(nil)
	return kube, a, err
}
