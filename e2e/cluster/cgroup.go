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

// rootGroup holds every process of the cluster: daemons, shims and containers.
// Being in it is what makes a process ours when its record is lost.
const rootGroup = "hyperflow"

// cgroups is the machine's cgroup file system, of either version.
type cgroups struct {
	v2      bool
	roots   []string // one folder per v1 hierarchy, or the single v2 one
	freezer string   // the hierarchy that lists and freezes processes
	memory  string   // the hierarchy that limits memory
	hybrid  string   // a v2 mount beside v1, where runc leaves empty folders
}

func findCgroups() (cgroups, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return cgroups{}, fmt.Errorf("list mounts: %w", err)
	}
	groups := parseCgroups(string(mounts))
	if groups.freezer == "" {
		return cgroups{}, errors.New("find the cgroup file system: no freezer is mounted below /sys/fs/cgroup")
	}
	return groups, nil
}

// parseCgroups reads /proc/mounts. On a hybrid machine the v1 hierarchies do
// the work: the cgroup2 mount beside them has no controllers.
func parseCgroups(mounts string) cgroups {
	var groups cgroups
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		path, kind, options := fields[1], fields[2], strings.Split(fields[3], ",")
		switch {
		case kind == "cgroup2" && path == "/sys/fs/cgroup":
			return cgroups{v2: true, roots: []string{path}, freezer: path, memory: path}
		case kind == "cgroup2" && strings.HasPrefix(path, "/sys/fs/cgroup/"):
			groups.hybrid = path
		case kind == "cgroup" && strings.HasPrefix(path, "/sys/fs/cgroup/"):
			groups.roots = append(groups.roots, path)
			if slices.Contains(options, "freezer") {
				groups.freezer = path
			}
			if slices.Contains(options, "memory") {
				groups.memory = path
			}
		}
	}
	return groups
}

// create makes a group and its parents in every hierarchy.
func (g cgroups) create(group string) error {
	for _, root := range g.roots {
		folder := root
		for part := range strings.SplitSeq(group, "/") {
			if err := g.prepareParent(folder); err != nil {
				return err
			}
			parent := folder
			folder = filepath.Join(folder, part)
			if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make the cgroup %s: %w", folder, err)
			}
			if err := inheritCPUs(parent, folder); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareParent lets a v2 group's children have controllers.
func (g cgroups) prepareParent(folder string) error {
	if !g.v2 {
		return nil
	}
	available, err := os.ReadFile(filepath.Join(folder, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("list controllers: %w", err)
	}
	for _, name := range strings.Fields(string(available)) {
		path := filepath.Join(folder, "cgroup.subtree_control")
		if err := os.WriteFile(path, []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("pass the controller %s on: %w", name, err)
		}
	}
	return nil
}

// inheritCPUs fills in a v1 cpuset, which takes no process while it is empty.
func inheritCPUs(parent, folder string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		current, err := os.ReadFile(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another hierarchy
		}
		if err != nil {
			return fmt.Errorf("read the cpuset of %s: %w", folder, err)
		}
		if strings.TrimSpace(string(current)) != "" {
			continue
		}
		inherited, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return fmt.Errorf("read the cpuset of %s: %w", parent, err)
		}
		if len(strings.TrimSpace(string(inherited))) == 0 {
			continue // v2, where empty means the parent's
		}
		if err := os.WriteFile(filepath.Join(folder, name), inherited, 0o644); err != nil {
			return fmt.Errorf("fill the cpuset of %s: %w", folder, err)
		}
	}
	return nil
}

// whole tells whether the group is there in every hierarchy.
func (g cgroups) whole(group string) bool {
	return !slices.ContainsFunc(g.roots, func(root string) bool {
		_, err := os.Stat(filepath.Join(root, group))
		return err != nil
	})
}

// adopt moves a process into a group.
func (g cgroups) adopt(group string, pid int) error {
	for _, root := range g.roots {
		path := filepath.Join(root, group, "cgroup.procs")
		if err := os.WriteFile(path, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("move process %d into %s: %w", pid, path, err)
		}
	}
	return nil
}

// processes lists the group's processes and those of the groups in it. A group
// that is not there has none.
func (g cgroups) processes(group string) ([]int, error) {
	var pids []int
	err := g.walk(g.freezer, group, func(folder string) error {
		content, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil // removed while we looked
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(content)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of cgroup %s: %w", group, err)
	}
	return pids, nil
}

// walk visits a group and those in it, parents first.
func (g cgroups) walk(root, group string, visit func(folder string) error) error {
	return filepath.WalkDir(filepath.Join(root, group), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !entry.IsDir():
			return nil
		case err != nil:
			return err
		}
		return visit(path)
	})
}

// freeze stops or continues every process of one group and waits for the kernel
// to have done so.
func (g cgroups) freeze(ctx context.Context, group string, frozen bool) error {
	folder := filepath.Join(g.freezer, group)
	file, value := filepath.Join(folder, "freezer.state"), "THAWED"
	if frozen {
		value = "FROZEN"
	}
	report, want := file, value
	if g.v2 {
		file, value = filepath.Join(folder, "cgroup.freeze"), "0"
		if frozen {
			value = "1"
		}
		report, want = filepath.Join(folder, "cgroup.events"), "frozen "+value
	}
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		return fmt.Errorf("write %s to %s: %w", value, file, err)
	}
	return waitFor(ctx, 5*time.Second, "the freezer of "+group, func(context.Context) error {
		content, err := os.ReadFile(report)
		if err != nil {
			return err
		}
		if !strings.Contains(string(content), want) {
			return fmt.Errorf("%s says %q", report, strings.TrimSpace(string(content)))
		}
		return nil
	})
}

// thawAll continues whatever is frozen in a group: a frozen v1 process does not
// even die.
func (g cgroups) thawAll(ctx context.Context, group string) error {
	return g.walk(g.freezer, group, func(folder string) error {
		name, err := filepath.Rel(g.freezer, folder)
		if err != nil {
			return err
		}
		if err := g.freeze(ctx, name, false); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return err
		}
		return nil
	})
}

// remove removes a group without processes, children first, in every hierarchy.
func (g cgroups) remove(ctx context.Context, group string) error {
	roots := g.roots
	if g.hybrid != "" {
		roots = append(slices.Clone(roots), g.hybrid)
	}
	return waitFor(ctx, 5*time.Second, "cgroup "+group+" to be removed", func(context.Context) error {
		for _, root := range roots {
			var folders []string
			err := g.walk(root, group, func(folder string) error {
				folders = append(folders, folder)
				return nil
			})
			if err != nil {
				return err
			}
			for _, folder := range slices.Backward(folders) {
				if err := syscall.Rmdir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return &fs.PathError{Op: "rmdir", Path: folder, Err: err}
				}
			}
		}
		return nil
	})
}
