package machine

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/xva"
)

// first is the first of some parameters that is given.
func first(q url.Values, names ...string) string {
	for _, name := range names {
		if v := q.Get(name); v != "" {
			return v
		}
	}
	return ""
}

func truth(q url.Values, name string, otherwise bool) (bool, error) {
	switch text := strings.ToLower(q.Get(name)); text {
	case "":
		return otherwise, nil
	case "true", "1", "yes":
		return true, nil
	case "false", "0", "no":
		return false, nil
	default:
		return false, api.ErrInvalidValue(name, clip(text))
	}
}

// truths reads parameters into what is as it was where they are not given. Of several
// that are wrong always the same one is told.
func truths(q url.Values, into map[string]*bool) (err error) {
	for _, name := range slices.Sorted(maps.Keys(into)) {
		if *into[name], err = truth(q, name, *into[name]); err != nil {
			return err
		}
	}
	return nil
}

func compression(q url.Values) (xva.Compression, error) {
	switch text := strings.ToLower(q.Get("use_compression")); text {
	case "", "false", "0", "no", "none":
		return xva.None, nil
	case "true", "1", "yes", "gzip":
		return xva.Gzip, nil
	case "zstd":
		return xva.Zstd, nil
	default:
		return "", api.ErrInvalidValue("use_compression", clip(text))
	}
}
