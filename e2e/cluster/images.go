package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// importLimit bounds the import of one image into one node.
const importLimit = 5 * time.Minute

func loadImageCommand(ctx context.Context, args []string) error {
	set := flagsOf("load-image")
	if err := parse(set, args, 2, -1); err != nil {
		return err
	}
	if set.NArg()%2 != 0 {
		fmt.Fprintln(set.Output(), "cluster load-image: every name needs an archive")
		set.Usage()
		return errUsage
	}
	// Shared: images may be loaded at the same time, but not while nodes go.
	s, unlock, err := openState(ctx, syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return errors.New("the cluster has no nodes, is it up?")
	}
	for i := 0; i < set.NArg(); i += 2 {
		name := fullName(set.Arg(i))
		there, err := s.isLoaded(ctx, nodes, name, set.Arg(i+1))
		if err != nil {
			return err
		}
		if there {
			s.say("%s is on %d nodes already", name, len(nodes))
			continue
		}
		if err := s.loadImage(ctx, nodes, name, set.Arg(i+1)); err != nil {
			return err
		}
		s.say("%s is on %d nodes", name, len(nodes))
	}
	return nil
}

// isLoaded tells whether every node has the image, and had it from this archive.
func (s *state) isLoaded(ctx context.Context, nodes []node, name, archive string) (bool, error) {
	same, err := sameContent(archive, s.imagePath(name))
	if err != nil || !same {
		return false, err
	}
	for _, n := range nodes {
		names, err := n.imageNames(ctx)
		if err != nil || !slices.Contains(names, name) {
			return false, err
		}
	}
	return true, nil
}

// sameContent compares a file with one that may not exist.
func sameContent(path, other string) (bool, error) {
	var sums [2][sha256.Size]byte
	for i, path := range []string{path, other} {
		file, err := os.Open(path)
		if i == 1 && errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("open the archive: %w", err)
		}
		hash := sha256.New()
		_, err = io.Copy(hash, file)
		file.Close()
		if err != nil {
			return false, fmt.Errorf("read the archive %s: %w", path, err)
		}
		hash.Sum(sums[i][:0])
	}
	return sums[0] == sums[1], nil
}

// loadImage gives the image to the nodes there are, and keeps a copy of the
// archive for nodes that are added or made anew.
func (s *state) loadImage(ctx context.Context, nodes []node, name, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("open the archive: %w", err)
	}
	defer file.Close()
	return s.storeImage(name, file, func(copied string) error {
		var imports []func() error
		for _, n := range nodes {
			imports = append(imports, func() error { return n.importImage(ctx, name, copied) })
		}
		return parallel(imports...)
	})
}

// imagePath is where an image's archive is kept. The name can be read back from
// it.
func (s *state) imagePath(name string) string {
	return s.path("images", url.PathEscape(name)+".tar")
}

// storeImage keeps an archive if use, which gets a copy of it, has no complaint.
func (s *state) storeImage(name string, archive io.Reader, use func(copied string) error) error {
	if err := os.MkdirAll(s.path("images"), 0o755); err != nil {
		return fmt.Errorf("make the folder of images: %w", err)
	}
	// A name of its own: two invocations may store the same image.
	part, err := os.CreateTemp(s.path("images"), "part-*")
	if err != nil {
		return fmt.Errorf("store the image %s: %w", name, err)
	}
	// Fails when all went well: the file then has its final name.
	defer os.Remove(part.Name())
	_, err = io.Copy(part, archive)
	if err := errors.Join(err, part.Close()); err != nil {
		return fmt.Errorf("store the image %s: %w", name, err)
	}
	if err := use(part.Name()); err != nil {
		// Some nodes may have the new image by now: the one before is nobody's.
		if gone := os.Remove(s.imagePath(name)); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return err
	}
	if err := os.Rename(part.Name(), s.imagePath(name)); err != nil {
		return fmt.Errorf("store the image %s: %w", name, err)
	}
	return nil
}

// importStored gives a node the stored images it lacks: all of them if it is new.
func (s *state) importStored(ctx context.Context, n node) error {
	present, err := n.imageNames(ctx)
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(s.path("images", "*.tar"))
	if err != nil {
		return fmt.Errorf("list the stored images: %w", err)
	}
	for _, archive := range archives {
		name, err := url.PathUnescape(strings.TrimSuffix(filepath.Base(archive), ".tar"))
		if err != nil {
			return fmt.Errorf("read the name of %s: %w", archive, err)
		}
		if slices.Contains(present, name) {
			continue
		}
		if err := n.importImage(ctx, name, archive); err != nil {
			return err
		}
	}
	return nil
}

// imageNames lists the images that a node's containerd has.
func (n node) imageNames(ctx context.Context) ([]string, error) {
	listed, err := run(ctx, "ctr", "-a", n.socket(), "-n", "k8s.io", "images", "list", "-q")
	return strings.Fields(listed), err
}

// importImage gives a node's containerd the image under one name, and moves the
// name if another image had it.
func (n node) importImage(ctx context.Context, name, archive string) error {
	named, err := archiveNames(archive, name)
	if err != nil {
		return err
	}
	args := []string{"-a", n.socket(), "-n", "k8s.io", "images", "import"}
	// Named by us as well, containerd would give the name to the archive's index
	// and to its image in turn, and collect the index while it unpacks it.
	if !named {
		args = append(args, "--index-name", name)
	}
	_, err = runFor(ctx, importLimit, "ctr", append(args, archive)...)
	return err
}

// archiveNames tells whether a docker archive names its image so itself.
func archiveNames(path, name string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("open the archive: %w", err)
	}
	defer file.Close()
	for entries := tar.NewReader(file); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return false, nil // An OCI archive: it has an index instead.
		}
		if err != nil {
			return false, fmt.Errorf("read the archive %s: %w", path, err)
		}
		if entry.Name != "manifest.json" {
			continue
		}
		var images []struct{ RepoTags []string }
		if err := json.NewDecoder(entries).Decode(&images); err != nil {
			return false, fmt.Errorf("read the manifest of %s: %w", path, err)
		}
		for _, image := range images {
			for _, tag := range image.RepoTags {
				if fullName(tag) == name {
					return true, nil
				}
			}
		}
		return false, nil
	}
}

// fullName writes an image's name the way containerd and the kubelet store it:
// with registry, folder and tag.
func fullName(name string) string {
	path, digest, pinned := strings.Cut(name, "@")
	first, _, nested := strings.Cut(path, "/")
	switch {
	case !nested:
		path = "docker.io/library/" + path
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		path = "docker.io/" + path
	}
	if pinned {
		return path + "@" + digest
	}
	if !strings.Contains(filepath.Base(path), ":") {
		path += ":latest"
	}
	return path
}
