package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	controlGroup  = rootGroup + "/control"
	storeName     = "etcd" // of its daemon and its folder
	apiServerName = "apiserver"
	etcdURL       = "http://127.0.0.1:2379"
	issuer        = "https://kubernetes.default.svc." + domain
)

func (s *state) storeFolder() string { return s.path(storeName) }

// startStore runs etcd. It does not wait for the disk: its data never outlives
// the boot of the machine, and a killed process loses nothing.
func (s *state) startStore(ctx context.Context, groups cgroups, kube string) error {
	return s.ensure(ctx, groups, daemon{
		name:  storeName,
		argv:  []string{kube, "etcd", "--data-dir=" + s.storeFolder(), "--client-url=" + etcdURL, "--unsafe-no-fsync"},
		group: controlGroup,
		probe: answers(etcdURL + "/health"),
	})
}

func (s *state) startAPIServer(ctx context.Context, groups cgroups, kube string, a *authority) error {
	front := s.frontProxy()
	return s.ensure(ctx, groups, daemon{
		name: apiServerName,
		argv: []string{kube, "apiserver",
			"--etcd-servers=" + etcdURL,
			// The bridge's address alone: nobody outside the machine can connect.
			"--bind-address=" + hostAddress,
			"--advertise-address=" + hostAddress,
			"--secure-port=6443",
			"--tls-cert-file=" + a.certPath("apiserver"),
			"--tls-private-key-file=" + a.keyPath("apiserver"),
			"--client-ca-file=" + a.certPath("ca"),
			"--kubelet-client-certificate=" + a.certPath("apiserver-kubelet-client"),
			"--kubelet-client-key=" + a.keyPath("apiserver-kubelet-client"),
			// The host does not know the nodes' names, so logs and exec would fail.
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=" + issuer,
			"--service-account-key-file=" + a.keyPath("service-account"),
			"--service-account-signing-key-file=" + a.keyPath("service-account"),
			"--service-cluster-ip-range=" + serviceRange,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			// The host reaches pods but not Services: webhooks are called by
			// the addresses behind their Service.
			"--enable-aggregator-routing=true",
			"--requestheader-client-ca-file=" + front.certPath("ca"),
			"--requestheader-allowed-names=" + frontProxyUser,
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + front.certPath("client"),
			"--proxy-client-key-file=" + front.keyPath("client"),
			"--profiling=false",
		},
		group: controlGroup,
		files: []string{a.certPath("apiserver"), a.certPath("ca"), a.keyPath("service-account")},
		probe: answers(apiURL + "/readyz"),
	})
}

func (s *state) startControllers(ctx context.Context, groups cgroups, kube string, a *authority) error {
	config := s.kubeconfigOf("controller-manager")
	return s.ensure(ctx, groups, daemon{
		name: "controller-manager",
		argv: []string{kube, "controller-manager",
			"--kubeconfig=" + config,
			"--authentication-kubeconfig=" + config,
			"--authorization-kubeconfig=" + config,
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + a.keyPath("service-account"),
			"--root-ca-file=" + a.certPath("ca"),
			"--cluster-signing-cert-file=" + a.certPath("ca"),
			"--cluster-signing-key-file=" + a.keyPath("ca"),
			// Each node's range is in its network configuration: nodes register
			// in any order, so ranges handed out here would not match.
			"--allocate-node-cidrs=false",
			"--profiling=false",
		},
		group: controlGroup,
		files: []string{config},
		probe: answers("https://127.0.0.1:10257/healthz"),
	})
}

func (s *state) startScheduler(ctx context.Context, groups cgroups, kube string) error {
	config := s.kubeconfigOf("scheduler")
	return s.ensure(ctx, groups, daemon{
		name: "scheduler",
		argv: []string{kube, "scheduler",
			"--kubeconfig=" + config,
			"--authentication-kubeconfig=" + config,
			"--authorization-kubeconfig=" + config,
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--profiling=false",
		},
		group: controlGroup,
		files: []string{config},
		probe: answers("https://127.0.0.1:10259/healthz"),
	})
}

// startControlPlane leaves a working API behind. The rest of the control plane
// starts in the meantime with startFollowers.
func (s *state) startControlPlane(ctx context.Context, groups cgroups, kube string, a *authority) error {
	if err := groups.create(controlGroup); err != nil {
		return err
	}
	if err := s.killStrays(ctx, groups); err != nil {
		return err
	}
	if err := s.startStore(ctx, groups, kube); err != nil {
		return err
	}
	return s.startAPIServer(ctx, groups, kube, a)
}

// killStrays ends daemons whose record is lost. They hold the ports of those to
// be started, and would even answer for them.
func (s *state) killStrays(ctx context.Context, groups cgroups) error {
	known := map[int]bool{}
	for _, name := range controlDaemons {
		r, running, err := s.find(name)
		if err != nil {
			return err
		}
		known[r.PID] = running
	}
	return waitFor(ctx, 10*time.Second, "strays to end", func(context.Context) error {
		pids, err := groups.processes(controlGroup)
		if err != nil {
			return err
		}
		strays := slices.DeleteFunc(pids, func(pid int) bool { return known[pid] })
		for _, pid := range strays {
			if err := groups.signalMember(controlGroup, pid, syscall.SIGKILL); err != nil {
				return err
			}
		}
		if len(strays) > 0 {
			return fmt.Errorf("still there: %v", strays)
		}
		return nil
	})
}

// startFollowers starts what needs the API server.
func (s *state) startFollowers(ctx context.Context, groups cgroups, kube string, a *authority) error {
	return parallel(
		func() error { return s.startControllers(ctx, groups, kube, a) },
		func() error { return s.startScheduler(ctx, groups, kube) },
		func() error { return s.startDNS(ctx, groups, kube) },
	)
}

var controlDaemons = []string{"dns", "scheduler", "controller-manager", apiServerName, storeName}

// removeControlPlane stops the control plane and forgets everything it knew.
func (s *state) removeControlPlane(ctx context.Context) error {
	var errs []error
	for _, name := range controlDaemons {
		errs = append(errs, s.stop(ctx, name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, path := range []string{storeName, unpacked, "pki", "kubeconfig", "dns", "admin.kubeconfig"} {
		errs = append(errs, os.RemoveAll(s.path(path)))
	}
	return errors.Join(errs...)
}
