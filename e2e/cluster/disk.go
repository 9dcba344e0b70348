package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// The nodes share a machine, and a hostPath would be one folder for the pods of
// all of them. So each has a mount namespace, in which diskFolder is a folder
// of its own: the disk of the node. On the machine itself it is empty.
const (
	diskFolder = "/var/lib/hyperflow"
	// volumesFolder is what tests give to pods.
	volumesFolder = "/var/lib/hyperflow-e2e"
	// mountnsFolder has a file for each node, which keeps its namespace.
	mountnsFolder = "/run/hyperflow-cluster"
)

// hostMount is a folder of the machine that is mounted on itself.
type hostMount struct {
	folder string
	// shared is whether what is mounted in it, on the machine or in a node, is
	// mounted in all of them.
	shared bool
}

// hostMounts are those that the nodes' namespaces depend on. Volumes of pods are
// looked at from the machine, and tests mount small disks into theirs. Disks are
// nobody else's; and the kernel keeps no mount namespace where others would get
// it too.
func (s *state) hostMounts() []hostMount {
	return []hostMount{{s.path("nodes"), true}, {volumesFolder, true}, {diskFolder, false}, {mountnsFolder, false}}
}

func (n node) disk() string    { return n.path("disk") }
func (n node) mountns() string { return filepath.Join(mountnsFolder, n.name()) }

// inside are the node's namespaces, for its daemons.
func (n node) inside() []string {
	return []string{"--net=" + n.netns(), "--mount=" + n.mountns()}
}

// ensureHostMounts makes the mounts of the machine that the nodes' namespaces
// depend on.
func (s *state) ensureHostMounts(ctx context.Context) error {
	for _, m := range s.hostMounts() {
		if err := m.ensure(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) hasHostMounts() (bool, error) {
	for _, m := range s.hostMounts() {
		if mounted, err := isMountPoint(m.folder); err != nil || !mounted {
			return false, err
		}
	}
	return true, nil
}

func (m hostMount) ensure(ctx context.Context) error {
	if err := os.MkdirAll(m.folder, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", m.folder, err)
	}
	mounted, err := isMountPoint(m.folder)
	if err != nil {
		return err
	}
	if !mounted {
		if _, err := run(ctx, "mount", "--bind", m.folder, m.folder); err != nil {
			return err
		}
	}
	kind := "--make-private"
	if m.shared {
		kind = "--make-shared"
	}
	_, err = run(ctx, "mount", kind, m.folder)
	return err
}

// removeHostMounts leaves the tests' volumes where they are, and a disk folder
// in which somebody has put something.
func (s *state) removeHostMounts() error {
	var errs []error
	for _, m := range s.hostMounts() {
		mounted, err := isMountPoint(m.folder)
		if err == nil && mounted {
			err = os.NewSyscallError("unmount "+m.folder, syscall.Unmount(m.folder, syscall.MNT_DETACH))
		}
		errs = append(errs, err)
	}
	for _, folder := range []string{diskFolder, mountnsFolder} {
		err := os.Remove(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("remove %s: %w", folder, err))
		}
	}
	return errors.Join(errs...)
}

func isMountPoint(folder string) (bool, error) {
	mounts, err := mountsBelow(filepath.Dir(folder))
	return slices.Contains(mounts, folder), err
}

// ensureDisk makes the node's mount namespace, and its disk in it.
func (n node) ensureDisk(ctx context.Context) error {
	if isNamespace(n.mountns()) {
		return nil
	}
	if err := os.MkdirAll(n.disk(), 0o755); err != nil {
		return fmt.Errorf("make the disk of %s: %w", n.name(), err)
	}
	if err := os.WriteFile(n.mountns(), nil, 0o600); err != nil {
		return fmt.Errorf("make the mount namespace of %s: %w", n.name(), err)
	}
	_, err := run(ctx, "unshare", "--mount="+n.mountns(), "--propagation", "unchanged",
		"mount", "--bind", n.disk(), diskFolder)
	if err != nil {
		// A namespace without the disk would pass for a whole one.
		return errors.Join(err, n.removeDisk())
	}
	return nil
}

// removeDisk removes the node's mount namespace. What only that has mounted goes
// with the last of its processes.
func (n node) removeDisk() error {
	if isNamespace(n.mountns()) {
		if err := syscall.Unmount(n.mountns(), 0); err != nil {
			return fmt.Errorf("unmount %s: %w", n.mountns(), err)
		}
	}
	if err := os.Remove(n.mountns()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mount namespace of %s: %w", n.name(), err)
	}
	return nil
}
