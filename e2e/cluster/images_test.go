package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyWhatEveryNodeTookIsKept(t *testing.T) {
	s := &state{dir: t.TempDir()}
	const name = "example.test/image:1"
	archive := filepath.Join(s.dir, "archive.tar")
	if err := os.WriteFile(archive, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(when string, want bool) {
		t.Helper()
		if same, err := sameContent(archive, s.imagePath(name)); err != nil || same != want {
			t.Errorf("%s: the same is %v, %v", when, same, err)
		}
	}
	taken := func(string) error { return nil }
	refused := errors.New("refused")

	check("nothing stored", false)
	if err := s.storeImage(name, strings.NewReader("old"), taken); err != nil {
		t.Fatal(err)
	}
	check("another image stored", false)
	if err := s.storeImage(name, strings.NewReader("new"), taken); err != nil {
		t.Fatal(err)
	}
	check("stored", true)
	err := s.storeImage(name, strings.NewReader("newer"), func(string) error { return refused })
	if !errors.Is(err, refused) {
		t.Errorf("a refused image: %v", err)
	}
	check("another image half-way on the nodes", false)
	if _, err := sameContent(filepath.Join(s.dir, "missing"), archive); err == nil {
		t.Error("an archive that is missing was compared")
	}
}
