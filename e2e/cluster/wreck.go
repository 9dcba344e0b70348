package main

import (
	"bufio"
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

// killAll ends every process in a group and those below it. Frozen ones are
// continued, or the signal would not reach them.
func (g cgroups) killAll(ctx context.Context, group string) error {
	return waitFor(ctx, 20*time.Second, "the processes of "+group+" to end", func(ctx context.Context) error {
		pids, err := g.processes(group)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := g.signalMember(group, pid, syscall.SIGKILL); err != nil {
				return err
			}
		}
		if err := g.thawAll(ctx, group); err != nil {
			return err
		}
		if pids, err = g.processes(group); err == nil && len(pids) > 0 {
			err = fmt.Errorf("still there: %v", pids)
		}
		return err
	})
}

// signalMember signals a process that is in the group. The handle is taken
// before membership is checked, so that a reused pid is never hit.
func (g cgroups) signalMember(group string, pid int, signal syscall.Signal) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer process.Release()
	pids, err := g.processes(group)
	if err != nil {
		return err
	}
	if !slices.Contains(pids, pid) {
		return nil
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}

// removeShimSockets removes the sockets that containerd's shims, now dead, left
// in a folder all containerds of a machine share.
func removeShimSockets(n node) error {
	files, err := filepath.Glob(n.path("containerd-state", "io.containerd.runtime.v2.task", "*", "*", "address"))
	if err != nil {
		return fmt.Errorf("look for shims: %w", err)
	}
	for _, file := range files {
		address, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a shim's address: %w", err)
		}
		path, found := strings.CutPrefix(strings.TrimSpace(string(address)), "unix://")
		if !found || !strings.HasPrefix(path, "/run/containerd/s/") {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a shim's socket: %w", err)
		}
	}
	return nil
}

// unmountBelow unmounts everything under a folder, the latest mount first, and
// fails if anything is left: deleting the folder would then delete through it.
func unmountBelow(folder string) error {
	mounts, err := mountsBelow(folder)
	if err != nil {
		return err
	}
	for _, mount := range slices.Backward(mounts) {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	if mounts, err = mountsBelow(folder); err == nil && len(mounts) > 0 {
		err = fmt.Errorf("unmount %s: %d mounts are left", folder, len(mounts))
	}
	return err
}

func mountsBelow(folder string) ([]string, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return parseMounts(string(content), folder)
}

// parseMounts reads mount points below a folder from /proc/PID/mountinfo, in the
// order they were mounted.
func parseMounts(mountinfo, folder string) ([]string, error) {
	var mounts []string
	lines := bufio.NewScanner(strings.NewReader(mountinfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		path, err := unescapeMount(fields[4])
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(path, folder+"/") {
			mounts = append(mounts, path)
		}
	}
	return mounts, lines.Err()
}

// unescapeMount undoes the kernel's octal escapes of blanks and backslashes.
func unescapeMount(path string) (string, error) {
	var plain strings.Builder
	for {
		before, after, found := strings.Cut(path, `\`)
		plain.WriteString(before)
		if !found {
			return plain.String(), nil
		}
		if len(after) < 3 {
			return "", fmt.Errorf("decode the mount point %q: short escape", path)
		}
		code, err := strconv.ParseUint(after[:3], 8, 8)
		if err != nil {
			return "", fmt.Errorf("decode the mount point %q: %w", path, err)
		}
		plain.WriteByte(byte(code))
		path = after[3:]
	}
}

// removeLogLinks removes the links to our pods' logs from the folder every
// kubelet of a machine shares.
func (s *state) removeLogLinks() error {
	links, err := filepath.Glob("/var/log/containers/*.log")
	if err != nil {
		return fmt.Errorf("look for log links: %w", err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, s.path("nodes")+"/") {
			continue // not a link, or not ours
		}
		if err := os.Remove(link); err != nil {
			return fmt.Errorf("remove a log link: %w", err)
		}
	}
	return nil
}
