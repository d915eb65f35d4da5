package host

import (
	"context"

	"cairn/init/config"
	"cairn/toolstack/api"
)

// SetRootPassword makes a password root's: the document gets its hash, and all
// else in it stays.
func (m *Manager) SetRootPassword(ctx context.Context, password string) error {
	root := map[string]any{"password_hash": config.HashPassword(password)}
	return m.editDocument(ctx, map[string]any{"root": root}, func(why string) *api.Error { return api.ErrChangePasswordRejected(why) })
}
