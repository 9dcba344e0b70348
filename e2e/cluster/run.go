package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// toolTimeout bounds the small programs we run; they answer in milliseconds.
const toolTimeout = 20 * time.Second

// run runs a program to its end. Its output is returned, and is in the error
// when it fails.
func run(ctx context.Context, name string, args ...string) (string, error) {
	return runFor(ctx, toolTimeout, name, args...)
}

func runFor(ctx context.Context, limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, name, args...)
	command.Stdout, command.Stderr = &output, &output
	// A grandchild that keeps the pipe open must not keep us waiting.
	command.WaitDelay = time.Second
	if err := command.Run(); err != nil {
		line := name + " " + strings.Join(args, " ")
		if text := strings.TrimSpace(output.String()); text != "" {
			return "", fmt.Errorf("run %s: %w: %s", line, err, text)
		}
		return "", fmt.Errorf("run %s: %w", line, err)
	}
	return output.String(), nil
}

// parallel runs all functions at once, waits for all, and returns every error.
func parallel(functions ...func() error) error {
	errs := make([]error, len(functions))
	var group sync.WaitGroup
	for i, function := range functions {
		group.Go(func() { errs[i] = function() })
	}
	group.Wait()
	return errors.Join(errs...)
}

func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// waitFor asks until check succeeds. When the time is up its last error is
// returned, wrapped in what we were waiting for.
func waitFor(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		once, stop := context.WithTimeout(ctx, 5*time.Second)
		err := check(once)
		stop()
		if err == nil {
			return nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
}
