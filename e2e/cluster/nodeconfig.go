package main

import "fmt"

// pauseImage is the sandbox of every pod; pause.go makes it.
const pauseImage = "hyperflow.dev/pause:1"

const containerdConfig = `version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = %[3]q
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE runc may not lower an oom score, and every pod would
  # stay in ContainerCreating.
  restrict_oom_score_adj = true
  # Pods' namespaces are then ours to find when the node is removed.
  netns_mounts_under_state_dir = true
  sandbox_image = %[4]q
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[5]q
    conf_dir = %[6]q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`

const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": false,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": %[1]q,
        "ranges": [[{"subnet": %[2]q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// writeRuntimeConfig returns containerd's configuration and that of its network.
func (n node) writeRuntimeConfig() ([]string, error) {
	config, cni := n.path("containerd.toml"), n.path("cni", "10-pods.conflist")
	text := fmt.Appendf(nil, containerdConfig, n.path("containerd"), n.path("containerd-state"), n.socket(),
		pauseImage, cniFolder, n.path("cni"))
	if err := writeFile(config, text, 0o644); err != nil {
		return nil, err
	}
	return []string{config, cni}, writeFile(cni, fmt.Appendf(nil, cniConfig, n.path("cni-addresses"), n.podCIDR()), 0o644)
}

// kubeletConfig: eviction and image removal are as good as off, because the disk
// they would act on is the whole machine's; and a container that is killed again
// and again waits one second at most, not minutes.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]s
healthzBindAddress: %[1]s
containerRuntimeEndpoint: unix://%[2]s
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /%[3]s
clusterDNS: [%[4]s]
clusterDomain: %[5]s
resolvConf: %[6]s
podLogsDir: %[7]s
volumePluginDir: %[8]s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %[9]s}
authorization: {mode: Webhook}
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%%
  nodefs.inodesFree: 1%%
  imagefs.available: 1%%
  imagefs.inodesFree: 1%%
imageGCHighThresholdPercent: 100
serializeImagePulls: false
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
`

func (n node) writeKubeletConfig(a *authority) (string, error) {
	resolver := n.path("resolv.conf")
	if err := writeFile(resolver, []byte("nameserver "+hostAddress+"\n"), 0o644); err != nil {
		return "", err
	}
	path := n.path("kubelet.yaml")
	text := fmt.Appendf(nil, kubeletConfig, n.address(), n.socket(), n.group(), hostAddress, domain, resolver,
		n.path("pod-logs"), n.path("volume-plugins"), a.certPath("ca"))
	return path, writeFile(path, text, 0o644)
}

// proxyConfig leaves the connection table's limits alone: they are the host's.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %[1]s}
hostnameOverride: %[2]s
clusterCIDR: %[3]s
healthzBindAddress: %[4]s:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

func (n node) writeProxyConfig(credentials string) (string, error) {
	path := n.path("proxy.yaml")
	return path, writeFile(path, fmt.Appendf(nil, proxyConfig, credentials, n.name(), podRange, n.address()), 0o644)
}
