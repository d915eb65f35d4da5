package repository

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cairn/init/hostd/client"
)

var (
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	namePattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.-]{0,63}$`)
)

func checkUUID(sr string) error {
	if !uuidPattern.MatchString(sr) {
		return Fail(client.CodeBadRequest, "%q is not the UUID of a repository", sr)
	}
	return nil
}

// checkName admits the name of a volume that is made here.
func checkName(name string) error {
	if !namePattern.MatchString(name) || strings.Contains(name, "..") {
		return Fail(client.CodeBadRequest, "%q is not a name for a volume", name)
	}
	return nil
}

// checkNew admits the name of a volume that is to be made.
func checkNew(name string) error {
	if strings.HasPrefix(name, logPrefix) {
		return Fail(client.CodeBadRequest, "%q is the name of a log", name)
	}
	return checkName(name)
}

// checkFound admits the name of a volume that others made: any that stays in its
// directory. What is not there will not be found.
func checkFound(name string) error {
	if name == "" || len(name) > 255 || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return Fail(client.CodeBadRequest, "%q is not a name of a volume", name)
	}
	return nil
}

// onlyKeys refuses keys of a config that mean nothing: a misspelt one would be
// silently ignored otherwise.
func onlyKeys(config map[string]string, keys ...string) error {
	for k := range config {
		if !slices.Contains(keys, k) {
			return Fail(client.CodeBadRequest, "device-config %q is not known to this type", k)
		}
	}
	return nil
}

// below reports whether a clean path lies below one of the prefixes.
func below(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(path, p+"/") })
}

// location checks that a directory is below the prefixes, also once symbolic links
// are followed. Of one that is not there yet, that is checked of what is.
func location(config map[string]string, prefixes []string) (string, error) {
	path := config["location"]
	if path == "" || filepath.Clean(path) != path || !below(path, prefixes) {
		return "", Fail(client.CodeBadRequest, "location %q is not a directory below %s", path, strings.Join(prefixes, ", "))
	}
	real := path
	for {
		r, err := filepath.EvalSymlinks(real)
		if err == nil {
			real = r
			break
		}
		if _, lerr := os.Lstat(real); lerr == nil || real == "/" {
			return "", Fail(client.CodeBadRequest, "location %s: %v", path, err)
		}
		real = filepath.Dir(real)
	}
	var allowed []string
	for _, p := range prefixes {
		if r, err := filepath.EvalSymlinks(p); err == nil {
			allowed = append(allowed, r)
		}
	}
	if !slices.Contains(allowed, real) && !below(real, allowed) {
		return "", Fail(client.CodeBadRequest, "location %s leads to %s, which is not below %s", path, real, strings.Join(prefixes, ", "))
	}
	return path, nil
}
