package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	hostconfig "cairn/init/config"
	"cairn/toolstack/client"
)

// localStorage is the repository of a new host: a directory, as it has no disks.
const localStorage = "/state/sr/local"

// stored waits until a host that is to have local storage has it, so that what is
// tried next finds it. One that was forgotten later is not waited for, nor is any on
// a host whose document, made by an older version, names none.
func stored(ctx context.Context, cfg config, api *client.Client) error {
	text, err := os.ReadFile(filepath.Join(cfg.Dir, "state/config/cairn.yaml"))
	if err != nil {
		return err
	}
	document, err := hostconfig.Parse(text)
	if err != nil || document.Storage == (hostconfig.Storage{}) {
		return err
	}
	var batch struct {
		Token string `json:"token"`
	}
	for {
		there, err := hasStorage(ctx, api)
		if err == nil && !there {
			err = api.Call(ctx, "event.from", &batch, []string{"host"}, batch.Token, 5.5)
		}
		if err != nil {
			return fmt.Errorf("local storage: %w", err)
		}
		if there {
			return nil
		}
	}
}

// hasStorage: the host says which repository it was given, which was attached then.
func hasStorage(ctx context.Context, api *client.Client) (bool, error) {
	var hosts map[string]struct {
		OtherConfig map[string]string `json:"other_config"`
	}
	if err := api.Call(ctx, "host.get_all_records", &hosts); err != nil {
		return false, err
	}
	for _, h := range hosts {
		return h.OtherConfig["cairn:local-storage"] != "", nil
	}
	return false, nil
}
