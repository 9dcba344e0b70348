package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// source is the kube binary's own code, so that this tool works from any folder.
//
//go:embed go.mod go.sum kube/*.go pause/pause.c
var source embed.FS

// versionFlags make the components tell the version they were built from: Go
// modules carry none, and an API server that calls itself v0.0.0 upsets clients.
const versionFlags = "-s -w" +
	" -X k8s.io/component-base/version.gitVersion=v1.35.4" +
	" -X k8s.io/component-base/version.gitMajor=1" +
	" -X k8s.io/component-base/version.gitMinor=35" +
	" -X k8s.io/component-base/version.gitTreeState=clean" +
	" -X k8s.io/client-go/pkg/version.gitVersion=v1.35.4" +
	" -X k8s.io/client-go/pkg/version.gitMajor=1" +
	" -X k8s.io/client-go/pkg/version.gitMinor=35" +
	" -X helm.sh/helm/v4/internal/version.version=v4.1.4"

// buildLimit is generous: the first build takes minutes on an idle machine.
const buildLimit = 45 * time.Minute

func buildCommand(ctx context.Context, args []string) error {
	if err := parse(flagsOf("build"), args, 0, 0); err != nil {
		return err
	}
	s, unlock, err := openState(ctx, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	path, err := s.build(ctx)
	if err != nil {
		return err
	}
	s.say("binary: %s", path)
	return nil
}

// build returns the path of the kube binary, compiled if this source and this
// compiler have not been together before.
func (s *state) build(ctx context.Context) (string, error) {
	key, err := buildKey(ctx)
	if err != nil {
		return "", err
	}
	path := s.path("bin", "kube-"+key)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := s.compile(ctx, path); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", fmt.Errorf("look for the cached binary: %w", err)
	}
	return path, s.linkClients(path)
}

func buildKey(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", fmt.Errorf("find the Go compiler: %w", err)
	}
	version, err := run(ctx, "go", "env", "GOVERSION", "GOARCH")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, version, versionFlags)
	err = fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".c" {
			return err
		}
		content, err := source.ReadFile(path)
		fmt.Fprintln(sum, path, len(content))
		sum.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the embedded source: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func (s *state) compile(ctx context.Context, path string) error {
	folder := s.path("build")
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("empty the build folder: %w", err)
	}
	if err := os.CopyFS(folder, source); err != nil {
		return fmt.Errorf("write the source out: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of the binary: %w", err)
	}
	s.say("compiling Kubernetes: minutes the first time, seconds after that")
	stop := s.sayEvery(30*time.Second, "still compiling")
	defer stop()
	part := path + ".part"
	// Without cgo the binary is static and needs nothing of the machine.
	_, err := runFor(ctx, buildLimit, "env", "CGO_ENABLED=0", "go", "-C", folder, "build",
		"-buildvcs=false", "-ldflags", versionFlags, "-o", part, "./kube")
	if err != nil {
		return err
	}
	if err := removeOldBinaries(filepath.Dir(path), part); err != nil {
		return err
	}
	if err := keepBinary(part, path); err != nil {
		return err
	}
	s.say("compiled")
	return os.RemoveAll(folder)
}

// keepBinary puts a binary in place once the disk has it, as it is the one file
// that is used again after a power failure.
func keepBinary(part, path string) error {
	file, err := os.Open(part)
	if err != nil {
		return fmt.Errorf("open the new binary: %w", err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the new binary to the disk: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("put the binary in place: %w", err)
	}
	return nil
}

// removeOldBinaries frees 170 MB for each earlier build. A cluster that still
// runs one keeps it open until the next up replaces its processes.
func removeOldBinaries(folder, keep string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("list the cached binaries: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		if strings.HasPrefix(entry.Name(), "kube-") && path != keep {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove an old binary: %w", err)
			}
		}
	}
	return nil
}

// linkClients gives the binary the names under which people type it.
func (s *state) linkClients(binary string) error {
	for _, name := range []string{"kube", "kubectl", "helm"} {
		link := s.path("bin", name)
		if target, err := os.Readlink(link); err == nil && target == filepath.Base(binary) {
			continue
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the old link %s: %w", link, err)
		}
		if err := os.Symlink(filepath.Base(binary), link); err != nil {
			return fmt.Errorf("link %s: %w", link, err)
		}
	}
	return nil
}

// sayEvery prints a line at intervals until the returned function is called.
func (s *state) sayEvery(interval time.Duration, text string) func() {
	ticker := time.NewTicker(interval)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				s.say("%s", text)
			case <-done:
				ticker.Stop()
				return
			}
		}
	}()
	return func() { close(done) }
}

// clientCommand runs one of the binary's clients in place of this process.
func clientCommand(name string) func(context.Context, []string) error {
	return func(_ context.Context, args []string) error {
		s, err := findState()
		if err != nil {
			return err
		}
		if _, err := os.Stat(s.kubeconfig()); err != nil {
			return fmt.Errorf("find the cluster, is it up?: %w", err)
		}
		if err := os.Setenv("KUBECONFIG", s.kubeconfig()); err != nil {
			return fmt.Errorf("set KUBECONFIG: %w", err)
		}
		binary := s.path("bin", name)
		err = syscall.Exec(binary, append([]string{name}, args...), os.Environ())
		return fmt.Errorf("start %s: %w", binary, err)
	}
}
