package audit

import (
	"strings"
	"testing"

	"cairn/image/rootfs"
)

func sound(t *testing.T) *rootfs.Tree {
	t.Helper()
	r := rootfs.New()
	must(t, r.Data("usr/share/cairn/etc/group", []byte("root:x:0:\nkvm:x:991:\n"), 0o644, ""))
	must(t, r.Data("usr/bin/gosh", []byte("shell"), 0o755, ""))
	must(t, r.Link("bin", "usr/bin", ""))
	must(t, r.Link("usr/bin/sh", "gosh", ""))
	must(t, r.Data("usr/bin/script", []byte("#!/bin/sh\n"), 0o755, ""))
	must(t, r.Data("usr/lib/udev/rules.d/50.rules", []byte(`KERNEL=="kvm", GROUP="kvm"`), 0o644, ""))
	must(t, r.Link("usr/share/x", "/var/lib/x", ""))
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSoundTree(t *testing.T) { must(t, Check(sound(t))) }

func TestCheckFinds(t *testing.T) {
	for name, c := range map[string]struct {
		add  func(*rootfs.Tree) error
		want string
	}{
		"bash":              {func(r *rootfs.Tree) error { return r.Data("usr/bin/bash", nil, 0o755, "") }, "usr/bin/bash"},
		"python by version": {func(r *rootfs.Tree) error { return r.Data("usr/bin/python3.13", nil, 0o755, "") }, "python3.13"},
		"dpkg as a link":    {func(r *rootfs.Tree) error { return r.Link("usr/sbin/dpkg", "../bin/gosh", "") }, "usr/sbin/dpkg"},
		"perl script":       {func(r *rootfs.Tree) error { return r.Data("usr/lib/x", []byte("#! /usr/bin/perl -w\n"), 0o755, "") }, "/usr/bin/perl"},
		"env script":        {func(r *rootfs.Tree) error { return r.Data("usr/lib/x", []byte("#!/usr/bin/env python3\n"), 0o644, "") }, "env python3"},
		"broken link":       {func(r *rootfs.Tree) error { return r.Link("usr/lib/x", "../none", "") }, "usr/none"},
		"link loop":         {func(r *rootfs.Tree) error { return r.Link("usr/lib/x", "x", "") }, "too many"},
		"unknown group": {func(r *rootfs.Tree) error {
			return r.Data("usr/lib/udev/rules.d/60.rules", []byte(`KERNEL=="x", GROUP="plugdev"`), 0o644, "")
		}, "plugdev"},
		"dynamic program without loader": {func(r *rootfs.Tree) error { return r.File("usr/bin/tool", "/bin/ls", 0o755, "") }, "not in the tree"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sound(t)
			must(t, c.add(r))
			if err := Check(r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
		})
	}
}
