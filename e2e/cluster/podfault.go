package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// toldLimit bounds the wait for a container. A busy kubelet says that one runs
// seconds after it began.
const toldLimit = 10 * time.Second

// podFault is one kind of harm done to the processes of a container's cgroup. It
// returns the pids it touched.
type podFault func(ctx context.Context, groups cgroups, group string) ([]int, error)

// podFaultCommand does harm to a pod's containers, never to its sandbox.
func podFaultCommand(kind string, harm podFault) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		set := flagsOf("fault " + kind)
		namespace := set.String("namespace", "default", "namespace of the pod")
		pod := set.String("pod", "", "name of the pod")
		container := set.String("container", "", "name of one container; all of the pod's otherwise")
		if err := parse(set, args, 0, 0); err != nil {
			return err
		}
		if *pod == "" {
			fmt.Fprintf(set.Output(), "cluster fault %s: needs a pod\n", kind)
			set.Usage()
			return errUsage
		}
		s, err := findState()
		if err != nil {
			return err
		}
		groups, err := findCgroups()
		if err != nil {
			return err
		}
		var targets []string
		err = waitFor(ctx, toldLimit, "a container to run, as far as the API server was told", func(ctx context.Context) error {
			targets, err = s.containerGroups(ctx, groups, *namespace, *pod, *container)
			if err == nil && len(targets) == 0 {
				err = errors.New("none does")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s %s/%s: %w", kind, *namespace, *pod, err)
		}
		var touched []int
		for _, group := range targets {
			pids, err := harm(ctx, groups, group)
			if err != nil {
				return err
			}
			touched = append(touched, pids...)
		}
		if len(touched) == 0 {
			return fmt.Errorf("%s %s/%s: no process was there", kind, *namespace, *pod)
		}
		fmt.Printf("%s %s/%s: %s\n", kind, *namespace, *pod, listed(touched))
		return nil
	}
}

// podView is what a fault needs to know of a pod.
type podView struct {
	Metadata struct {
		UID string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Init      []containerView `json:"initContainerStatuses"`
		Main      []containerView `json:"containerStatuses"`
		Ephemeral []containerView `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type containerView struct {
	Name        string `json:"name"`
	ContainerID string `json:"containerID"`
}

// containerGroups finds the cgroups of the pod's containers that exist now.
func (s *state) containerGroups(ctx context.Context, groups cgroups, namespace, pod, container string) ([]string, error) {
	api, err := s.newClient()
	if err != nil {
		return nil, err
	}
	var view podView
	path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", url.PathEscape(namespace), url.PathEscape(pod))
	if err := api.get(ctx, path, &view); err != nil {
		return nil, err
	}
	number, err := parseNodeName(view.Spec.NodeName)
	if err != nil {
		return nil, fmt.Errorf("find the node of %s/%s: %w", namespace, pod, err)
	}
	all := slices.Concat(view.Status.Init, view.Status.Main, view.Status.Ephemeral)
	if container != "" && !slices.ContainsFunc(all, func(c containerView) bool { return c.Name == container }) {
		return nil, fmt.Errorf("%s/%s has no container %q", namespace, pod, container)
	}
	var found []string
	for _, c := range all {
		id, running := strings.CutPrefix(c.ContainerID, "containerd://")
		if !running || container != "" && c.Name != container {
			continue
		}
		group, err := groups.findContainer(s.node(number), view.Metadata.UID, id)
		if err != nil {
			return nil, err
		}
		if group != "" {
			found = append(found, group)
		}
	}
	return found, nil
}

// findContainer looks in the three places a kubelet puts pods, by their quality
// of service. It returns nothing for a container that has ended.
func (g cgroups) findContainer(n node, uid, id string) (string, error) {
	for _, class := range []string{"", "burstable", "besteffort"} {
		pattern := filepath.Join(g.freezer, n.group(), "kubepods", class, "pod"+uid, id)
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("look for container %s: %w", id, err)
		}
		if len(matches) > 0 {
			return filepath.Rel(g.freezer, matches[0])
		}
	}
	return "", nil
}

// killGroup freezes first, so that no process escapes by making another.
func killGroup(ctx context.Context, groups cgroups, group string) ([]int, error) {
	pids, err := freezeGroup(ctx, groups, group)
	if err != nil || len(pids) == 0 {
		return nil, err
	}
	return pids, killFrozen(ctx, groups, group, pids)
}

// killFrozen kills the processes of a frozen group. They die when thawed, before
// they run again.
func killFrozen(ctx context.Context, groups cgroups, group string, pids []int) error {
	for _, pid := range pids {
		if err := groups.signalMember(group, pid, syscall.SIGKILL); err != nil {
			return errors.Join(err, groups.freeze(context.WithoutCancel(ctx), group, false))
		}
	}
	return groups.thawAll(context.WithoutCancel(ctx), group)
}

// freezeGroup stops every process where it is. A freezer that does not get
// there is undone.
func freezeGroup(ctx context.Context, groups cgroups, group string) ([]int, error) {
	if err := groups.freeze(ctx, group, true); err != nil {
		return nil, errors.Join(err, groups.freeze(context.WithoutCancel(ctx), group, false))
	}
	return groups.processes(group)
}

func thawGroup(ctx context.Context, groups cgroups, group string) ([]int, error) {
	pids, err := groups.processes(group)
	if err != nil {
		return nil, err
	}
	return pids, groups.thawAll(ctx, group)
}
