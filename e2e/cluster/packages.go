package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cniFolder is where Debian keeps the network plugins containerd calls.
const cniFolder = "/usr/lib/cni"

// needed maps each program the cluster calls to the Debian package that has it.
var needed = map[string]string{
	"containerd":              "containerd",
	"ctr":                     "containerd",
	"runc":                    "runc",
	"ip":                      "iproute2",
	"iptables":                "iptables",
	"nft":                     "nftables",
	"conntrack":               "conntrack",
	"nsenter":                 "util-linux",
	"mount":                   "mount",
	"tar":                     "tar",
	"gcc":                     "gcc libc6-dev",
	cniFolder + "/bridge":     "containernetworking-plugins",
	"/usr/include/string.h":   "libc6-dev",
	cniFolder + "/host-local": "containernetworking-plugins",
}

// installPackages installs what is missing and touches nothing else.
func (s *state) installPackages(ctx context.Context) error {
	missing, err := missingPackages()
	if err != nil || len(missing) == 0 {
		return err
	}
	s.say("installing %s", strings.Join(missing, " "))
	install := append([]string{"DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends"}, missing...)
	if _, err := runFor(ctx, 10*time.Minute, "env", install...); err == nil {
		return nil
	}
	// The lists of a fresh machine are empty or old.
	if _, err := runFor(ctx, 5*time.Minute, "apt-get", "update", "-qq"); err != nil {
		return err
	}
	_, err = runFor(ctx, 10*time.Minute, "env", install...)
	return err
}

func missingPackages() ([]string, error) {
	var missing []string
	for program, packages := range needed {
		found, err := present(program)
		if err != nil {
			return nil, err
		}
		if !found {
			missing = append(missing, strings.Fields(packages)...)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing), nil
}

func present(program string) (bool, error) {
	var err error
	if filepath.IsAbs(program) {
		_, err = os.Stat(program)
	} else {
		_, err = exec.LookPath(program)
	}
	if err == nil || errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return err == nil, nil
	}
	return false, fmt.Errorf("look for %s: %w", program, err)
}
