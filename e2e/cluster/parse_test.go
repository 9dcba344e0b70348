package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"testing"
)

func TestParseCgroups(t *testing.T) {
	hybrid := parseCgroups(`cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,relatime,freezer 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup /elsewhere/freezer cgroup rw,freezer 0 0
`)
	if hybrid.v2 || len(hybrid.roots) != 3 || hybrid.freezer != "/sys/fs/cgroup/freezer" || hybrid.hybrid == "" ||
		hybrid.memory != "/sys/fs/cgroup/memory" {
		t.Errorf("hybrid: %+v", hybrid)
	}
	unified := parseCgroups("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
	if !unified.v2 || unified.freezer != "/sys/fs/cgroup" || unified.memory != unified.freezer || len(unified.roots) != 1 {
		t.Errorf("unified: %+v", unified)
	}
	if none := parseCgroups("proc /proc proc rw 0 0\n"); none.freezer != "" {
		t.Errorf("none: %+v", none)
	}
}

func TestParseMounts(t *testing.T) {
	const mountinfo = `24 1 254:0 / / rw - ext4 /dev/root rw
30 24 0:30 / /state/nodes/node-1/a rw - tmpfs tmpfs rw
31 24 0:31 / /state/nodes/node-1/with\040blank\134 rw - tmpfs tmpfs rw
32 24 0:32 / /state/nodes/node-10/a rw - tmpfs tmpfs rw
`
	mounts, err := parseMounts(mountinfo, "/state/nodes/node-1")
	want := []string{"/state/nodes/node-1/a", `/state/nodes/node-1/with blank\`}
	if err != nil || !slices.Equal(mounts, want) {
		t.Errorf("got %q, %v", mounts, err)
	}
	if _, err := unescapeMount(`/a\04`); err == nil {
		t.Error("a short escape was taken")
	}
}

func TestParseNodeName(t *testing.T) {
	for name, want := range map[string]int{"node-1": 1, "node-63": 63, "node-0": 0, "node-64": 0, "node-x": 0, "other": 0, "": 0} {
		if got, err := parseNodeName(name); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v", name, got, err)
		}
	}
}

func TestFullName(t *testing.T) {
	for name, want := range map[string]string{
		"bb":                        "docker.io/library/bb:latest",
		"bb:1":                      "docker.io/library/bb:1",
		"org/bb":                    "docker.io/org/bb:latest",
		"localhost/bb":              "localhost/bb:latest",
		"hyperflow.dev/worker:1":    "hyperflow.dev/worker:1",
		"registry:5000/bb":          "registry:5000/bb:latest",
		"hyperflow.dev/a@sha256:12": "hyperflow.dev/a@sha256:12",
	} {
		if got := fullName(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func TestDockerArchiveHoldsWhatItNames(t *testing.T) {
	archive, err := dockerArchive("test:1", "program", []byte("binary"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if want := []string{"layer.tar", "config.json", "manifest.json"}; !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
}

func TestLockIsExclusiveAndSurvivesPurge(t *testing.T) {
	t.Setenv(dirVariable, t.TempDir()+"/state")
	s, err := findState()
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lock(t.Context(), syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error)
	go func() {
		release, err := s.lock(t.Context(), syscall.LOCK_EX)
		if err == nil {
			release()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("two hold the lock: %v", err)
	default:
	}
	if err := syscall.Rmdir(s.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	unlock()
	if err := <-second; err != nil {
		t.Error(err)
	}
}
