package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// squeezeLimit bounds the wait for the kernel to run out of patience.
	squeezeLimit = 20 * time.Second
	// squeezeStep is what the limit of a v1 group goes down by. The kernel takes
	// what it can reclaim, and refuses what it cannot.
	squeezeStep = 256 << 10
)

// squeezeGroup takes memory away from a container until the kernel kills a
// process of it for want of memory. It returns the pids that are gone. The limit
// goes with the container: the kubelet starts another.
func squeezeGroup(ctx context.Context, groups cgroups, group string) ([]int, error) {
	before, err := groups.processes(group)
	if err != nil || len(before) == 0 {
		return nil, err
	}
	folder := filepath.Join(groups.memory, group)
	kills, err := groups.outOfMemoryKills(folder)
	if err != nil {
		return nil, err
	}
	err = waitFor(ctx, squeezeLimit, "the kernel to kill for want of memory", func(context.Context) error {
		now, err := groups.outOfMemoryKills(folder)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV):
			return nil // The container is gone; why it ended is for the kubelet to say.
		case err != nil:
			return err
		case now > kills:
			return nil
		}
		if err := groups.takeMemory(folder); err != nil {
			return err
		}
		return errors.New("it found some yet")
	})
	if err != nil {
		return nil, err
	}
	// Whoever is killed is listed until it has ended.
	var gone []int
	err = waitFor(ctx, squeezeLimit, "a process to be gone", func(context.Context) error {
		after, err := groups.processes(group)
		if err != nil {
			return err
		}
		gone = slices.DeleteFunc(slices.Clone(before), func(pid int) bool { return slices.Contains(after, pid) })
		if len(gone) == 0 {
			return errors.New("all are there")
		}
		return nil
	})
	return gone, err
}

// takeMemory sets the limit as low as the kernel takes it. In v2 it kills rather
// than refuse; in v1 the next page that a process needs makes it kill.
func (g cgroups) takeMemory(folder string) error {
	if g.v2 {
		return ignoreGone(os.WriteFile(filepath.Join(folder, "memory.max"), []byte("0"), 0o644))
	}
	usage, err := readNumber(filepath.Join(folder, "memory.usage_in_bytes"))
	if err != nil {
		return ignoreGone(err)
	}
	file := filepath.Join(folder, "memory.limit_in_bytes")
	for limit := usage; limit > 0; limit -= squeezeStep {
		err := os.WriteFile(file, []byte(strconv.FormatInt(limit, 10)), 0o644)
		if errors.Is(err, syscall.EBUSY) {
			return nil
		}
		if err != nil {
			return ignoreGone(err)
		}
	}
	return nil
}

// outOfMemoryKills counts the processes of a group that the kernel killed so far.
func (g cgroups) outOfMemoryKills(folder string) (int64, error) {
	file := filepath.Join(folder, "memory.oom_control")
	if g.v2 {
		file = filepath.Join(folder, "memory.events")
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if count, found := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); found {
			return strconv.ParseInt(count, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not count kills", file)
}

func readNumber(file string) (int64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
}

// ignoreGone forgives a container that ends while we look.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}
