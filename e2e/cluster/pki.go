package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of the certificates, which end with the cluster anyway.
const lifetime = 2 * 365 * 24 * time.Hour

// frontProxyUser is the API server when it passes a request on.
const frontProxyUser = "front-proxy-client"

// authority signs the cluster's certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// identity is what one certificate says about its holder.
type identity struct {
	file   string // base name of its .crt and .key
	name   string // user name
	group  string // user group; may be empty
	server bool   // also proves the API server's addresses
}

var identities = []identity{
	{file: "apiserver", name: "kube-apiserver", server: true},
	{file: "apiserver-kubelet-client", name: "kube-apiserver-kubelet-client", group: "system:masters"},
	{file: "admin", name: "hyperflow-admin", group: "system:masters"},
	{file: "controller-manager", name: "system:kube-controller-manager"},
	{file: "scheduler", name: "system:kube-scheduler"},
	{file: "proxy", name: "system:kube-proxy"},
	{file: "dns", name: dnsUser},
}

// ensurePKI loads the authority, or makes one, and signs what is missing.
func (s *state) ensurePKI(nodes []node) (*authority, error) {
	a, err := loadOrMakeAuthority(s.path("pki"))
	if err != nil {
		return nil, err
	}
	if err := a.ensureServiceAccountKey(); err != nil {
		return nil, err
	}
	for _, who := range identities {
		if err := a.ensure(who); err != nil {
			return nil, err
		}
	}
	for _, n := range nodes {
		if err := a.ensure(identity{file: n.name(), name: "system:node:" + n.name(), group: "system:nodes"}); err != nil {
			return nil, err
		}
	}
	return a, s.ensureFrontProxy()
}

// frontProxy is the authority behind aggregated APIs. It must be another one:
// who has a certificate of it may act for any user.
func (s *state) frontProxy() *authority { return &authority{dir: s.path("pki", "front-proxy")} }

func (s *state) ensureFrontProxy() error {
	a, err := loadOrMakeAuthority(s.frontProxy().dir)
	if err != nil {
		return err
	}
	return a.ensure(identity{file: "client", name: frontProxyUser})
}

func (a *authority) certPath(file string) string { return filepath.Join(a.dir, file+".crt") }
func (a *authority) keyPath(file string) string  { return filepath.Join(a.dir, file+".key") }

func loadOrMakeAuthority(dir string) (*authority, error) {
	a := &authority{dir: dir}
	cert, err := readPEM(a.certPath("ca"))
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.make()
	}
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(cert); err != nil {
		return nil, fmt.Errorf("decode the authority's certificate: %w", err)
	}
	key, err := readPEM(a.keyPath("ca"))
	if err != nil {
		return nil, err
	}
	if a.key, err = x509.ParseECPrivateKey(key); err != nil {
		return nil, fmt.Errorf("decode the authority's key: %w", err)
	}
	return a, nil
}

func (a *authority) make() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority's key: %w", err)
	}
	template, err := newTemplate(pkix.Name{CommonName: "hyperflow-cluster"})
	if err != nil {
		return err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	a.key, a.cert = key, template
	return a.write("ca", template, key)
}

// ensure signs a certificate unless it is there.
func (a *authority) ensure(who identity) error {
	if _, err := os.Stat(a.certPath(who.file)); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", who.file, err)
	}
	subject := pkix.Name{CommonName: who.name}
	if who.group != "" {
		subject.Organization = []string{who.group}
	}
	template, err := newTemplate(subject)
	if err != nil {
		return err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if who.server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.IPAddresses = []net.IP{net.ParseIP(hostAddress), net.ParseIP(apiService), net.IPv4(127, 0, 0, 1)}
		template.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default",
			"kubernetes.default.svc", "kubernetes.default.svc." + domain}
	}
	return a.write(who.file, template, key)
}

func newTemplate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		// Clocks of a suspended machine step back.
		NotBefore: time.Now().Add(-time.Hour),
		NotAfter:  time.Now().Add(lifetime),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}, nil
}

// write signs and stores a pair. The certificate goes last: it says that the
// pair is whole.
func (a *authority) write(file string, template *x509.Certificate, key *ecdsa.PrivateKey) error {
	cert, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate of %s: %w", file, err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of %s: %w", file, err)
	}
	if err := writePEM(a.keyPath(file), "EC PRIVATE KEY", encoded); err != nil {
		return err
	}
	return writePEM(a.certPath(file), "CERTIFICATE", cert)
}

// ensureServiceAccountKey makes the RSA pair tokens are signed with: RS256 is
// what every verifier of Kubernetes tokens understands.
func (a *authority) ensureServiceAccountKey() error {
	if _, err := os.Stat(a.keyPath("service-account")); err == nil {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make the service account key: %w", err)
	}
	return writePEM(a.keyPath("service-account"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
}

func writePEM(path, kind string, content []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600)
}

func readPEM(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("decode %s: no PEM block", path)
	}
	return block.Bytes, nil
}
